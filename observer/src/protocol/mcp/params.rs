//! What matters of the `params` of a request or notification.

use std::borrow::Cow;
use std::sync::Arc;

use super::method::{MAX_NAME, cut};
use super::reply::{Task, implementation};
use crate::protocol::digest::{Digest, characters};
use crate::protocol::json::{Fault, Scanner};
use crate::protocol::jsonrpc::RpcId;
use crate::protocol::observation::Implementation;

/// Bytes of a short text (version, reason, trace parent, task id) that are kept.
const MAX_TEXT: usize = 256;

/// Bytes of a URI that are kept, to be compared with what a header field says.
const MAX_URI: usize = 1024;

/// What every `_meta` key of the specification begins with (2026-07-28, basic, `_meta`).
pub(crate) const META_PREFIX: &[u8] = b"io.modelcontextprotocol/";

/// What matters of `params`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Params {
    /// `name`.
    pub(crate) name: Option<Arc<str>>,
    /// `uri`.
    pub(crate) uri: Option<Arc<str>>,
    /// `taskId` and `status`.
    pub(crate) task: Option<Box<Task>>,
    /// `protocolVersion`, where it is a string.
    pub(crate) version: Option<Arc<str>>,
    /// `clientInfo`, or that of `_meta`.
    pub(crate) client: Option<Arc<Implementation>>,
    /// `_meta["io.modelcontextprotocol/protocolVersion"]`.
    pub(crate) meta_version: Option<Arc<str>>,
    /// Whether `_meta` has a key that begins with `io.modelcontextprotocol/`.
    pub(crate) meta_proves: bool,
    /// `_meta.traceparent`.
    pub(crate) traceparent: Option<Arc<str>>,
    /// `_meta.progressToken` of a request, `progressToken` of a progress notification.
    pub(crate) progress_token: Option<RpcId>,
    /// `requestId` of a cancellation.
    pub(crate) request_id: Option<RpcId>,
    /// `reason` of a cancellation.
    pub(crate) reason: Option<Arc<str>>,
    /// `cursor` of a listing.
    pub(crate) cursor: Option<Digest>,
    /// `requestState`: what the server gave with the round before.
    pub(crate) request_state: Option<Digest>,
    /// Whether there are `inputResponses`.
    pub(crate) answers_input: bool,
    /// Of everything that is asked for: what stays equal when a request is repeated.
    pub(crate) fingerprint: Digest,
    /// Characters of `arguments`, as JSON text.
    pub(crate) characters: Option<u64>,
}

impl Params {
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            let start = scanner.clone();
            match key {
                b"name" => self.name = scanner.string_value()?.map(|name| cut(&name, MAX_NAME).into()),
                b"uri" => self.uri = scanner.string_value()?.map(|uri| cut(&uri, MAX_URI).into()),
                b"arguments" => self.characters = Some(characters(scanner.raw()?)),
                b"taskId" | b"status" => self.task.get_or_insert_default().read_member(scanner, key)?,
                b"result" => self.task.get_or_insert_default().read_result(scanner)?,
                b"protocolVersion" => self.version = short(scanner.string_value()?),
                b"clientInfo" => self.client = implementation(scanner)?,
                b"progressToken" => self.progress_token = RpcId::from_json(scanner.raw()?),
                b"requestId" => self.request_id = RpcId::from_json(scanner.raw()?),
                b"reason" => self.reason = short(scanner.string_value()?),
                b"cursor" => self.cursor = Some(Digest::of(scanner.raw()?)),
                b"requestState" => {
                    self.request_state = Some(Digest::of(scanner.raw()?));
                    return Ok(());
                }
                b"inputResponses" => {
                    self.answers_input = true;
                    return scanner.skip();
                }
                b"_meta" => return self.read_meta(scanner),
                _ => scanner.skip()?,
            }
            self.fingerprint.add(key, scanner.since(&start));
            Ok(())
        })
    }

    fn read_meta(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            self.meta_proves |= key.starts_with(META_PREFIX);
            match key.strip_prefix(META_PREFIX).unwrap_or(key) {
                b"protocolVersion" => self.meta_version = short(scanner.string_value()?),
                b"clientInfo" => self.client = implementation(scanner)?,
                b"traceparent" => self.traceparent = short(scanner.string_value()?),
                b"progressToken" => self.progress_token = RpcId::from_json(scanner.raw()?),
                _ => return scanner.skip(),
            }
            Ok(())
        })
    }

    /// What `Mcp-Name` repeats of the body (2026-07-28, transports): a name, a URI or a task id.
    pub(crate) fn named(&self) -> Option<&str> {
        let task = || self.task.as_ref()?.id.as_deref();
        self.name.as_deref().or(self.uri.as_deref()).or_else(task)
    }
}

/// A short text, cut at [`MAX_TEXT`].
pub(crate) fn short(text: Option<Cow<'_, str>>) -> Option<Arc<str>> {
    text.map(|text| cut(&text, MAX_TEXT).into())
}
