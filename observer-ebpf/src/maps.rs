//! Every map: what it holds, why that size. The state "never written" of each is safe.
//!
//! All are allocated when they are made, some 50 MB of kernel memory besides the ring: allocating in a tracing program may deadlock on kernels
//! before 6.1, which warn of it.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use observer_common::{
    drops::{DropCount, KERNEL_REASONS},
    limits::{MAX_KERNEL_STREAMS, MAX_OPEN_CALLS, MAX_SCOPED_CGROUPS, MAX_SCOPED_PROCESSES},
    stream::VERDICT_SLOTS,
};

use crate::{
    call::Call,
    stream::{MUTED_SLOTS, Muted, Stream},
};

/// Records on their way to the daemon, which sets the size before loading.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// Calls between entry and return, by thread. A thread is in one call at a time; its entry stays until the thread ends, idle
/// between calls, since making and removing one costs more than the call's bytes.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(MAX_OPEN_CALLS, 0);

/// Streams in sight, by the address of the kernel object. Freed objects leave by their release hook, where that is missed by
/// the least-recently-used rule; an address used again is told by its inode number.
#[map]
pub static STREAMS: LruHashMap<u64, Stream> = LruHashMap::with_max_entries(MAX_KERNEL_STREAMS, 0);

/// Objects that are muted, by `stream::muted_slot`: in front of `STREAMS`, since what is not MCP moves most bytes. An object that
/// shares its slot with another is found there; one that has ended takes itself out.
#[map]
pub static MUTED: Array<Muted> = Array::with_max_entries(MUTED_SLOTS, 0);

/// TCP sockets in sight by the sequence numbers at which both directions began, so that the two ends of a connection find each
/// other across namespaces and address translation. One entry a socket in `STREAMS`.
#[map]
pub static CONNECTIONS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(MAX_KERNEL_STREAMS, 0);

/// What the daemon has decided, by `StreamKey::verdict_slot`; one word a slot, written by the daemon.
#[map]
pub static VERDICTS: Array<u64> = Array::with_max_entries(VERDICT_SLOTS, 0);

/// Not 0 once every probe is in place.
#[map]
pub static ARMED: Array<u32> = Array::with_max_entries(1, 0);

/// Births so far on each CPU.
#[map]
pub static BIRTHS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Lost events and bytes by `DropReason`; slot 0 counts muted bytes.
#[map]
pub static DROPS: PerCpuArray<DropCount> = PerCpuArray::with_max_entries(KERNEL_REASONS, 0);

/// Processes in scope under `--pid`; children are added when they are made, the dead removed.
#[map]
pub static PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(MAX_SCOPED_PROCESSES, 0);

/// Control groups in scope under `--cgroup`, by id; new groups are added when they are made.
#[map]
pub static CGROUPS: HashMap<u64, u8> = HashMap::with_max_entries(MAX_SCOPED_CGROUPS, 0);
