//! What matters of a `result`.

use std::sync::Arc;

use bytes::Bytes;

use super::method::{MAX_NAME, cut};
use super::params::{META_PREFIX, short};
use crate::protocol::digest::{Digest, characters};
use crate::protocol::json::{Fault, Scanner};
use crate::protocol::observation::Implementation;

/// Bytes of the text of a failed call that are looked at for what it complains of.
const MAX_COMPLAINT: usize = 512;

/// What matters of `result`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reply {
    /// `isError` is true.
    pub(crate) is_error: bool,
    /// Whether there is `content`, `contents` or `messages`.
    pub(crate) has_content: bool,
    /// `resultType`.
    pub(crate) result_type: Option<Arc<str>>,
    /// `protocolVersion`.
    pub(crate) version: Option<Arc<str>>,
    /// `serverInfo`, or that of `_meta`.
    pub(crate) server: Option<Arc<Implementation>>,
    /// Whether `_meta` has a key that begins with `io.modelcontextprotocol/`.
    pub(crate) meta_proves: bool,
    /// `task` of an acknowledgement (2025-11-25), or the task that the result itself is.
    pub(crate) task: Option<Box<Task>>,
    /// A listing, or `structuredContent`.
    pub(crate) kept: Option<Kept>,
    /// `nextCursor`.
    pub(crate) next_cursor: Option<Digest>,
    /// `requestState` and `inputRequests`.
    pub(crate) wanted: Option<Box<Wanted>>,
    /// Characters of texts; nothing of images, audio and blobs.
    pub(crate) characters: u64,
    /// The begin of the text of a failed call.
    pub(crate) complaint: Option<Arc<str>>,
}

/// A task as any message tells of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Task {
    /// `taskId`.
    pub(crate) id: Option<Arc<str>>,
    /// `status`.
    pub(crate) status: Option<Arc<str>>,
    /// `result.isError` is true (2026-07-28: the result is in the task).
    pub(crate) is_error: bool,
    /// Whether the task has its `result` with it.
    pub(crate) has_result: bool,
    /// It was in a member `task`: an acknowledgement of 2025-11-25.
    pub(crate) acknowledged: bool,
}

/// A part of a result that is read again by who knows what it is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) part: Part,
    /// The value as JSON text; of a message that is cut, as much as there is.
    pub(crate) text: Bytes,
}

/// See [`Kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Tools,
    Prompts,
    Resources,
    Templates,
    Structured,
}

/// What a server wants before it goes on (2026-07-28, `input_required`).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) state: Option<Digest>,
    /// Methods of `inputRequests`; the first that is known counts.
    pub(crate) method: Option<Arc<str>>,
}

impl Reply {
    /// `source`: what the scanner's text is part of.
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'_>, source: &Bytes) -> Result<(), Fault> {
        let start = scanner.clone();
        scanner.members(&mut |scanner, key| {
            match key {
                b"isError" => self.is_error = scanner.raw()? == b"true",
                b"resultType" => self.result_type = short(scanner.string_value()?),
                b"protocolVersion" => self.version = short(scanner.string_value()?),
                b"serverInfo" => self.server = implementation(scanner)?,
                b"content" | b"contents" | b"messages" => {
                    self.has_content = true;
                    return count(scanner, &mut self.characters);
                }
                b"task" => return self.task.get_or_insert_default().read(scanner),
                b"taskId" | b"status" => return self.task.get_or_insert_default().read_member(scanner, key),
                b"result" => return self.task.get_or_insert_default().read_result(scanner),
                b"tools" => return self.keep(Part::Tools, scanner, source),
                b"prompts" => return self.keep(Part::Prompts, scanner, source),
                b"resources" => return self.keep(Part::Resources, scanner, source),
                b"resourceTemplates" => return self.keep(Part::Templates, scanner, source),
                b"structuredContent" => return self.keep(Part::Structured, scanner, source),
                b"nextCursor" => self.next_cursor = Some(Digest::of(scanner.raw()?)),
                b"requestState" => self.wanted.get_or_insert_default().state = Some(Digest::of(scanner.raw()?)),
                b"inputRequests" => return self.wanted.get_or_insert_default().read(scanner),
                b"_meta" => return self.read_meta(scanner),
                _ => return scanner.skip(),
            }
            Ok(())
        })?;
        if self.is_error {
            self.complaint = first_text(&mut start.clone())?;
        }
        Ok(())
    }

    /// Characters that a model gets to read: of a listing those of its JSON text.
    pub(crate) fn characters(&self) -> u64 {
        let listed = self.kept.as_ref().filter(|kept| kept.part != Part::Structured);
        listed.map_or(self.characters, |kept| characters(&kept.text))
    }

    fn keep(&mut self, part: Part, scanner: &mut Scanner<'_>, source: &Bytes) -> Result<(), Fault> {
        let rest = scanner.rest();
        let outcome = scanner.raw();
        let text = *outcome.as_ref().unwrap_or(&rest);
        self.kept = Some(Kept {
            part,
            text: source.slice_ref(text),
        });
        outcome.map(|_| ())
    }

    fn read_meta(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, key| {
            self.meta_proves |= key.starts_with(META_PREFIX);
            if key.strip_prefix(META_PREFIX) == Some(b"serverInfo".as_slice()) {
                self.server = implementation(scanner)?;
                return Ok(());
            }
            scanner.skip()
        })
    }
}

impl Task {
    /// The member `task` of an acknowledgement.
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        self.acknowledged = true;
        scanner.members(&mut |scanner, key| match key {
            b"taskId" | b"status" => self.read_member(scanner, key),
            _ => scanner.skip(),
        })
    }

    pub(crate) fn read_member(&mut self, scanner: &mut Scanner<'_>, key: &[u8]) -> Result<(), Fault> {
        let text = short(scanner.string_value()?);
        match key {
            b"taskId" => self.id = text,
            _ => self.status = text,
        }
        Ok(())
    }

    pub(crate) fn read_result(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        self.has_result = true;
        scanner.members(&mut |scanner, key| {
            if key == b"isError" {
                self.is_error = scanner.raw()? == b"true";
                return Ok(());
            }
            scanner.skip()
        })
    }
}

impl Wanted {
    /// `inputRequests`: an object of requests by a key that the server chose.
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.members(&mut |scanner, _| {
            scanner.members(&mut |scanner, key| {
                if key == b"method" {
                    let method = short(scanner.string_value()?);
                    self.method = self.method.take().or(method);
                    return Ok(());
                }
                scanner.skip()
            })
        })
    }
}

/// Counts the characters of every `text` in content blocks, embedded resources and messages.
fn count(scanner: &mut Scanner<'_>, characters: &mut u64) -> Result<(), Fault> {
    match scanner.peek()? {
        b'[' => scanner.items(&mut |scanner| count(scanner, characters)),
        b'{' => scanner.members(&mut |scanner, key| match key {
            b"text" => scanner.characters(characters),
            b"content" | b"resource" => count(scanner, characters),
            _ => scanner.skip(),
        }),
        _ => scanner.skip(),
    }
}

/// The begin of the first text in `content`.
fn first_text(scanner: &mut Scanner<'_>) -> Result<Option<Arc<str>>, Fault> {
    let mut found = None;
    scanner.members(&mut |scanner, key| {
        if key != b"content" {
            return scanner.skip();
        }
        scanner.items(&mut |scanner| {
            scanner.members(&mut |scanner, key| {
                if key == b"text" && found.is_none() {
                    found = scanner.string_value()?.map(|text| cut(&text, MAX_COMPLAINT).into());
                    return Ok(());
                }
                scanner.skip()
            })
        })
    })?;
    Ok(found)
}

/// `Implementation` of the schema: what a peer calls itself.
pub(crate) fn implementation(scanner: &mut Scanner<'_>) -> Result<Option<Arc<Implementation>>, Fault> {
    let (mut name, mut version) = (None, String::new());
    scanner.members(&mut |scanner, key| {
        match key {
            b"name" => name = scanner.string_value()?.map(|text| cut(&text, MAX_NAME).to_owned()),
            b"version" => version = short(scanner.string_value()?).map_or_else(String::new, |text| text.to_string()),
            _ => return scanner.skip(),
        }
        Ok(())
    })?;
    Ok(name.map(|name| Arc::new(Implementation { name, version })))
}
