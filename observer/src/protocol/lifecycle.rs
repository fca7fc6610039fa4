//! Streams begin and end, processes come and go.

use super::Pipeline;
use super::conversation::Ended;
use super::event::{
    Closed, Direction, DropReason, Holder, Opened, Pid, Process, ProcessChange, Source, Timestamp, Verdict,
};
use super::framing::Framer;
use super::matcher::Slot;
use super::mcp::call::{Doom, Pending};
use super::mcp::outcome::End;
use super::mcp::peer::PeerKey;
use super::observation::{Observation, Output, Side, Vantage};
use super::stream::{FlowId, LinkId};

impl Pipeline {
    pub(crate) fn opened(&mut self, opened: &Opened) {
        if self.streams.find(opened.key).is_none() {
            self.make_room();
        }
        let (id, gone) = self.streams.open(opened);
        if let Some(gone) = gone {
            self.drop_second_sight(gone);
        }
        let Some(link) = self.streams.link(id) else {
            return;
        };
        let told = link.told;
        if told != Verdict::Undecided
            && let Some(peer) = opened.peer
        {
            self.outputs.push_back(Output::Verdict(peer, told));
        }
    }

    /// Calls seen on what turned out to be the other half of a stream are the other view of calls counted there.
    fn drop_second_sight(&mut self, gone: LinkId) {
        for slot in self.matcher.slots() {
            if let Some(pending) = self.matcher.get_mut(slot).filter(|pending| pending.flow.link == gone) {
                pending.parties.vantage = Vantage::Hop;
                self.end(slot, &Ended::without_answer(End::Deadline, None), None);
                self.emit(slot);
            }
        }
    }

    pub(crate) fn holder(&mut self, holder: &Holder) {
        for (key, direction) in &holder.ends {
            if self.streams.find(*key).is_none() {
                self.make_room();
            }
            self.streams.hold(*key, *direction, holder.pid);
        }
    }

    pub(crate) fn closed(&mut self, closed: &Closed) {
        let told_elsewhere = self.is_shadow(closed.key);
        self.forget_session(closed.key);
        let Some((id, end)) = self.streams.find(closed.key) else {
            return;
        };
        let Some(link) = self.streams.link_mut(id) else {
            return;
        };
        if link.source == Some(Source::Pipe) {
            return self.pipe_closed(id, closed);
        }
        let by = match closed.direction {
            Direction::Sent => end,
            Direction::Received => 1 - end,
        };
        link.ends[by].closed = true;
        if closed.direction == Direction::Received && link.ends[by].key.is_none() {
            // Only this end is in sight; it may go on writing.
            self.end_flow(FlowId { link: id, side: by });
        }
        let flow_id = FlowId { link: id, side: by };
        // What it wrote its reader tells, and may be about to.
        if closed.direction == Direction::Sent && !told_elsewhere && !self.is_left_to_reader(flow_id) {
            self.end_flow(flow_id);
        }
        self.socket_closed(id, by, closed.time);
        if self.streams.link(id).is_some_and(super::stream::Link::is_over) {
            self.end_both(id);
            self.remove_link(id);
        }
    }

    fn pipe_closed(&mut self, id: LinkId, closed: &Closed) {
        let flow_id = FlowId { link: id, side: 0 };
        if !closed.writers_left && (!closed.readers_left || !self.is_left_to_reader(flow_id)) {
            self.end_flow(flow_id);
        }
        let sender = self.streams.flow(flow_id).and_then(|flow| flow.line.sender);
        let doom = match (sender, closed.readers_left, closed.writers_left) {
            // Answers cannot come any more, or requests not be read.
            (Some(Side::Server), _, false) | (Some(Side::Client) | None, false, _) => Some(Doom::ServerGone),
            (Some(Side::Server), false, _) => Some(Doom::ClientGone),
            _ => None,
        };
        let requests = match sender {
            Some(Side::Server) => self.streams.flow(flow_id).and_then(|flow| flow.line.partner),
            _ => Some(flow_id),
        };
        if let (Some(doom), Some(requests)) = (doom, requests) {
            self.doom_where(doom, closed.time, |pending| pending.flow == requests);
        }
        if !closed.readers_left && !closed.writers_left {
            self.end_flow(flow_id);
            self.remove_link(id);
        }
    }

    /// One end of a socket closed.
    fn socket_closed(&mut self, id: LinkId, by: usize, time: Timestamp) {
        let Some(link) = self.streams.link(id) else {
            return;
        };
        let http = link.http.as_ref().map(|talk| talk.requests.side);
        if let Some(client) = http {
            let by = if client == by { Side::Client } else { Side::Server };
            return self.http_closed(id, by, time);
        }
        // The end that closed wrote one flow and read the other.
        for (flow_id, wrote) in [
            (FlowId { link: id, side: by }, true),
            (FlowId { link: id, side: 1 - by }, false),
        ] {
            let Some(sender) = self.streams.flow(flow_id).and_then(|flow| flow.line.sender) else {
                continue;
            };
            let who = match (sender, wrote) {
                (Side::Client, true) | (Side::Server, false) => Doom::ClientGone,
                (Side::Server, true) | (Side::Client, false) => Doom::ServerGone,
            };
            let requests = match sender {
                Side::Client => Some(flow_id),
                Side::Server => self.counterpart(flow_id),
            };
            if let Some(requests) = requests {
                self.doom_where(who, time, |pending| pending.flow == requests);
            }
        }
    }

    /// Whether bytes of a flow are still to be told by their reader, although their writer is gone.
    fn is_left_to_reader(&self, flow_id: FlowId) -> bool {
        self.streams
            .flow(flow_id)
            .is_some_and(|flow| flow.assembler.awaits_reader())
    }

    fn end_both(&mut self, link: LinkId) {
        for side in 0..2 {
            self.end_flow(FlowId { link, side });
        }
    }

    /// No more bytes will come on a flow.
    fn end_flow(&mut self, flow_id: FlowId) {
        let Some(flow) = self.streams.flow_mut(flow_id).filter(|flow| !flow.ended) else {
            return;
        };
        flow.ended = true;
        flow.assembler.close();
        self.drive(flow_id);
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return;
        };
        flow.framer.finish();
        self.drive(flow_id);
        let mcp = self.streams.link(flow_id.link).is_some_and(|link| link.mcp);
        let Some(flow) = self.streams.flow_mut(flow_id) else {
            return;
        };
        let left = flow.framer.held_bytes() as u64;
        flow.reframe(Framer::Ignore);
        if left > 0 && mcp {
            self.lose(DropReason::CutShort, left);
        }
    }

    pub(crate) fn remove_link(&mut self, id: LinkId) {
        self.peers.forget(&PeerKey::Link(id));
        self.forget_socket(id);
        self.streams.remove(id);
    }

    pub(crate) fn process(&mut self, process: &Process) {
        let pid = process.pid;
        match process.change {
            ProcessChange::Fork { .. } => {}
            ProcessChange::Exec => self.observe_process(pid, Observation::PeerReplaced { pid }),
            ProcessChange::Exit { code } => {
                let time = process.time;
                self.doom_where(Doom::ServerGone, time, |pending| {
                    pending.parties.server.pid == Some(pid)
                });
                self.doom_where(Doom::ClientGone, time, |pending| {
                    pending.parties.client.pid == Some(pid)
                });
                self.end_sessions(pid, time);
                self.observe_process(pid, Observation::PeerExit { pid, code, time });
            }
        }
    }

    /// Tells of a process that was a party of MCP, and forgets it.
    fn observe_process(&mut self, pid: Pid, observation: Observation) {
        let exit = matches!(observation, Observation::PeerExit { .. });
        let links = self.streams.of_process(pid);
        let party = links
            .iter()
            .any(|link| self.streams.link(*link).is_some_and(|link| link.mcp));
        self.peers.forget(&PeerKey::Process(pid));
        if exit {
            self.streams.forget_process(pid);
        }
        if party {
            self.observe(observation);
        }
    }

    fn doom_where(&mut self, doom: Doom, time: Timestamp, concerned: impl Fn(&Pending) -> bool) {
        let slots: Vec<Slot> = self
            .matcher
            .iter()
            .filter(|(_, pending)| pending.over.is_none() && concerned(pending))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            self.doom(slot, doom, time);
        }
    }

    /// Makes room for one more stream: those that were active longest ago go.
    pub(crate) fn make_room(&mut self) {
        if self.streams.len() < self.limits.streams.max(1) {
            return;
        }
        for id in self.streams.stalest() {
            self.evictions.streams += 1;
            self.evict(id, DropReason::StreamEvicted);
        }
    }

    /// Makes room for bytes: streams that hold any go, those that were active longest ago first.
    pub(crate) fn make_room_for_bytes(&mut self) {
        // More than is needed, so that looking for them is rare.
        let target = self.limits.held_bytes - self.limits.held_bytes / 16;
        let holders = self.streams.holders();
        if self.streams.held <= self.limits.held_bytes {
            return;
        }
        for id in holders {
            if self.streams.held <= target {
                return;
            }
            self.evictions.held += 1;
            self.evict(id, DropReason::HeldEvicted);
        }
    }

    pub(crate) fn evict(&mut self, id: LinkId, reason: DropReason) {
        let held = self.streams.link(id).map_or(0, super::stream::Link::held_bytes);
        self.lose(reason, held as u64);
        self.remove_link(id);
    }

    /// The end: every stream is over, every call comes out as it stands.
    pub(crate) fn give_up_all(&mut self) {
        let links: Vec<LinkId> = self.streams.iter().map(|(id, _)| id).collect();
        for id in links {
            self.end_both(id);
        }
        self.give_up_all_early();
        for slot in self.matcher.slots() {
            let Some(pending) = self.matcher.get(slot) else {
                continue;
            };
            if pending.over.is_none() {
                let end = match pending.doomed {
                    Some((Doom::ServerGone, _)) => End::ServerGone,
                    Some((Doom::ClientGone, _)) => End::ClientGone,
                    Some((Doom::Cancelled, _)) => End::Cancelled { timeout: false },
                    None => End::Deadline,
                };
                self.end(slot, &Ended::without_answer(end, None), None);
            }
            self.emit(slot);
        }
    }
}
