//! Ring records to [`Event`]s: checked, owned, nothing trusted but the record's length.
//!
//! The only unsafe of the reading side, kept to one function.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use observer_common::drops::DropReason;
use observer_common::record::{
    self as raw, AT_OTHER_END, CLOSED_READERS_LEFT, CLOSED_WRITERS_LEFT, Head, MUTED, RecordKind, SEQUENCE_TCP,
};
use observer_common::stream::{Direction, Source, StreamKey};

use crate::protocol::event::{Closed, Data, Event, Missing, Opened, Pid, Position, Process, ProcessChange, Timestamp};

/// `AF_INET` and `AF_INET6`.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Types of `observer_common::record`: `repr(C)`, integers only, no padding.
trait Plain: Copy {}
impl Plain for Head {}
impl Plain for raw::Data {}
impl Plain for raw::Opened {}
impl Plain for raw::Closed {}
impl Plain for raw::Process {}

/// The first bytes of `record` as a `T`; `None` when there are too few.
fn head_of<T: Plain>(record: &[u8]) -> Option<T> {
    let bytes = record.get(..size_of::<T>())?;
    // SAFETY: `bytes` has the size of `T`, and any bytes are a valid `T`, which holds integers only.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The event that a record tells of; `None` for one that this version does not understand.
#[must_use]
pub fn event(record: &[u8]) -> Option<Event> {
    match *record.first()? {
        kind if kind == RecordKind::Data as u8 => data(record),
        kind if kind == RecordKind::Opened as u8 => opened(&head_of(record)?),
        kind if kind == RecordKind::Closed as u8 => closed(&head_of(record)?),
        kind if kind == RecordKind::Exec as u8 => Some(process(&head_of(record)?, |_| ProcessChange::Exec)),
        kind if kind == RecordKind::Fork as u8 => Some(process(&head_of(record)?, |fork| ProcessChange::Fork {
            parent: Pid(fork.parent),
        })),
        kind if kind == RecordKind::Exit as u8 => Some(process(&head_of(record)?, |exit| ProcessChange::Exit {
            code: exit.exit_code,
        })),
        _ => None,
    }
}

/// The process that a record tells of; `None` for a record without a head.
#[must_use]
pub fn process_of(record: &[u8]) -> Option<u32> {
    head_of::<Head>(record).map(|head| head.pid)
}

/// The bytes of `record` that mean something: a ring slot is as large as its size class.
#[must_use]
pub fn trimmed(record: &[u8]) -> &[u8] {
    match head_of::<raw::Data>(record) {
        Some(data) if data.head.kind == RecordKind::Data as u8 => {
            let end = size_of::<raw::Data>().saturating_add(data.captured as usize);
            record.get(..end).unwrap_or(record)
        }
        _ => record,
    }
}

fn data(record: &[u8]) -> Option<Event> {
    let raw: raw::Data = head_of(record)?;
    let start = size_of::<raw::Data>();
    let bytes = record.get(start..start.checked_add(raw.captured as usize)?)?;
    let missing = match raw.missing {
        0 => Missing::Nothing,
        AT_OTHER_END => Missing::AtOtherEnd,
        MUTED => Missing::Muted,
        reason => Missing::Lost(DropReason::from_u8(reason)?),
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a TCP sequence number is the low 32 bits"
    )]
    let position = if raw.sequence == SEQUENCE_TCP {
        Position::Sequence(raw.offset as u32)
    } else {
        Position::Total(raw.offset)
    };
    Some(Event::Data(Data {
        key: raw.key(),
        direction: Direction::from_u8(raw.head.direction)?,
        position,
        span: raw.span.max(raw.captured),
        bytes: Bytes::copy_from_slice(bytes),
        missing,
        pid: Pid(raw.head.pid),
        tid: raw.tid,
        entered: (raw.entered != 0).then_some(Timestamp(raw.entered)),
        returned: Timestamp(raw.returned),
    }))
}

fn opened(raw: &raw::Opened) -> Option<Event> {
    Some(Event::Opened(Opened {
        key: StreamKey(raw.stream),
        source: Source::from_u8(raw.head.source)?,
        peer: (raw.peer != 0).then_some(StreamKey(raw.peer)),
        inode: raw.inode,
        local: address(raw.family, &raw.local, raw.local_port),
        remote: address(raw.family, &raw.remote, raw.remote_port),
        netns: raw.netns,
        pid: Pid(raw.head.pid),
        time: Timestamp(raw.time),
    }))
}

/// An address as people write it: an IPv4 address mapped into IPv6 is an IPv4 address.
fn address(family: u16, bytes: &[u8; 16], port: u16) -> Option<SocketAddr> {
    let ip = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(*bytes)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn closed(raw: &raw::Closed) -> Option<Event> {
    Some(Event::Closed(Closed {
        key: StreamKey(raw.stream),
        direction: Direction::from_u8(raw.head.direction)?,
        readers_left: raw.head.flags & CLOSED_READERS_LEFT != 0,
        writers_left: raw.head.flags & CLOSED_WRITERS_LEFT != 0,
        pid: Pid(raw.head.pid),
        time: Timestamp(raw.time),
    }))
}

fn process(raw: &raw::Process, change: impl FnOnce(&raw::Process) -> ProcessChange) -> Event {
    let name = raw.comm.split(|&byte| byte == 0).next().unwrap_or_default();
    Event::Process(Process {
        pid: Pid(raw.head.pid),
        change: change(raw),
        comm: String::from_utf8_lossy(name).into_owned(),
        time: Timestamp(raw.time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a record as the kernel side writes them.
    fn bytes_of<T: Plain>(record: &T) -> Vec<u8> {
        // SAFETY: a `Plain` has no padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }.to_vec()
    }

    fn head(kind: RecordKind) -> Head {
        Head {
            kind: kind as u8,
            source: Source::Tcp as u8,
            direction: Direction::Sent as u8,
            flags: 0,
            pid: 42,
        }
    }

    #[test]
    fn data_beyond_the_record_is_refused() {
        let mut record = bytes_of(&raw::Data {
            head: head(RecordKind::Data),
            captured: 4,
            span: 4,
            ..Default::default()
        });
        record.extend_from_slice(b"abc");
        assert_eq!(event(&record), None);
        record.push(b'd');
        let Some(Event::Data(data)) = event(&record) else {
            panic!("refused")
        };
        assert_eq!((&data.bytes[..], data.pid), (&b"abcd"[..], Pid(42)));
    }

    #[test]
    fn mapped_addresses_are_v4() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(
            address(AF_INET6, &mapped, 80),
            Some("10.0.0.1:80".parse().expect("an address"))
        );
    }

    #[test]
    fn no_record_of_any_bytes_panics() {
        for length in 0..200 {
            for kind in 0..9 {
                let mut record = vec![0xff; length];
                if let Some(first) = record.first_mut() {
                    *first = kind;
                }
                let _ = event(&record);
            }
        }
    }

    #[test]
    fn trimming_keeps_the_event() {
        let mut record = bytes_of(&raw::Data {
            head: head(RecordKind::Data),
            captured: 2,
            span: 9,
            ..Default::default()
        });
        record.extend_from_slice(b"hi and rubbish");
        assert_eq!(trimmed(&record).len(), size_of::<raw::Data>() + 2);
        assert_eq!(event(trimmed(&record)), event(&record));
    }
}
