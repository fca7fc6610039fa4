//! Which two flows of lines are one conversation, and which request an answer belongs to.

use crate::protocol::Pipeline;
use crate::protocol::jsonrpc::RpcId;
use crate::protocol::matcher::{Scope, Slot};
use crate::protocol::observation::Side;
use crate::protocol::stream::FlowId;

impl Pipeline {
    /// The request that an answer on `flow` belongs to.
    pub(crate) fn find_line_request(&mut self, flow_id: FlowId, id: &RpcId) -> Option<Slot> {
        if let Some(slot) = self.matcher.find(Scope::Line(flow_id.reverse()), id) {
            return Some(slot);
        }
        if let Some(partner) = self.streams.flow(flow_id)?.line.partner
            && let Some(slot) = self.matcher.find(Scope::Line(partner), id)
        {
            return Some(slot);
        }
        let (slot, requests) = self.find_unpaired(flow_id, id)?;
        if self.streams.link(requests.link)?.http.is_none() {
            self.pair(requests, flow_id);
        }
        Some(slot)
    }

    /// Among requests of that id whose answers come on a stream not yet known: the one between the same processes.
    fn find_unpaired(&self, flow_id: FlowId, id: &RpcId) -> Option<(Slot, FlowId)> {
        let answers = self.streams.flow(flow_id)?;
        let score = |slot: &Slot| {
            let requests = self.matcher.get(*slot)?.flow;
            let asked = self.streams.flow(requests).filter(|_| requests != flow_id)?;
            let (server, client) = (
                answers.writers.affinity(&asked.readers),
                answers.readers.affinity(&asked.writers),
            );
            let taken = asked.line.partner.is_some_and(|partner| partner != flow_id);
            let best = server.max(client);
            (best > 0 && server + client > 0 && !taken).then_some((server + client, requests, *slot))
        };
        let mut found: Option<(i8, FlowId, Slot)> = None;
        for candidate in self.matcher.unpaired(id).iter().filter_map(score) {
            if found.is_none_or(|best| candidate.0 > best.0) {
                found = Some(candidate);
            }
        }
        found.map(|(_, requests, slot)| (slot, requests))
    }

    /// Joins the two flows of a conversation.
    fn pair(&mut self, requests: FlowId, answers: FlowId) {
        for (flow, partner, sender) in [(requests, answers, Side::Client), (answers, requests, Side::Server)] {
            if let Some(flow) = self.streams.flow_mut(flow) {
                flow.line.partner = Some(partner);
                flow.line.sender = Some(sender);
            }
        }
    }

    /// Pairs a flow of answers whose requests were not seen with the only flow of requests between the same processes.
    ///
    /// Looked for at the first held message, the second, the fourth and so on: a process may have many streams.
    pub(super) fn find_kin(&mut self, flow_id: FlowId) -> bool {
        let Some(answers) = self.streams.flow(flow_id).filter(|flow| flow.line.is_time_to_look()) else {
            return false;
        };
        let Some(pid) = answers.readers.actor().or(answers.writers.actor()) else {
            return false;
        };
        let mut found: Option<(i8, FlowId)> = None;
        let mut ambiguous = false;
        for link in self.streams.of_process(pid) {
            for requests in [0, 1].map(|side| FlowId { link: *link, side }) {
                let Some(asked) = self.streams.flow(requests).filter(|_| requests != flow_id) else {
                    continue;
                };
                let talk = &asked.line;
                if !talk.evident || talk.sender != Some(Side::Client) || talk.partner.is_some() {
                    continue;
                }
                let (server, client) = (
                    answers.writers.affinity(&asked.readers),
                    answers.readers.affinity(&asked.writers),
                );
                let score = server + client;
                if score < 3 || found.is_some_and(|(best, _)| best > score) {
                    continue;
                }
                ambiguous = found.is_some_and(|(best, other)| best == score && other != requests);
                found = Some((score, requests));
            }
        }
        match found {
            Some((_, requests)) if !ambiguous => self.pair(requests, flow_id),
            _ => return false,
        }
        true
    }
}
