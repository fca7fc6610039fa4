//! HTTP+SSE (2024-11-05): messages are posted to an endpoint that the event stream names, answers come on that stream.

use std::sync::Arc;

use crate::protocol::Pipeline;
use crate::protocol::stream::LinkId;

impl Pipeline {
    /// The first event of HTTP+SSE (2024-11-05): messages are posted to the URI it names, answers come on this connection.
    pub(super) fn sse_endpoint(&mut self, link: LinkId, number: u64, uri: &[u8]) {
        let uri = String::from_utf8_lossy(uri).trim().to_owned();
        let query = uri.split_once('?').map(|(_, query)| query);
        let Some(session) = session_of(query) else {
            return;
        };
        if let Some(exchange) = self.talk(link).and_then(|talk| talk.exchange(number)) {
            exchange.sse = true;
            let request = Arc::make_mut(&mut exchange.request);
            request.query = query.map(Into::into);
            request.session = Some(session.clone());
        }
        self.sse_session(link, number, &session);
        self.sse_sessions.entry(session, || ());
        self.exchange_is_mcp(link, number);
    }

    /// Whether a POST goes to the endpoint of a known HTTP+SSE session; it is marked so.
    pub(super) fn is_sse_endpoint(&mut self, link: LinkId, number: u64) -> bool {
        let Some(exchange) = self
            .streams
            .link_mut(link)
            .and_then(|link| link.http.as_mut()?.exchange(number))
        else {
            return false;
        };
        let Some(session) = session_of(exchange.request.query.as_deref()) else {
            return false;
        };
        exchange.sse = exchange.sse || (exchange.request.session.is_none() && self.sse_sessions.contains(&session));
        exchange.sse
    }
}

/// The session id in an endpoint's query: `session_id` in the Python SDK, `sessionId` in the TypeScript SDK.
pub(super) fn session_of(query: Option<&str>) -> Option<Arc<str>> {
    query?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = name.to_ascii_lowercase();
        matches!(name.as_str(), "session_id" | "sessionid" | "session").then(|| value.into())
    })
}
