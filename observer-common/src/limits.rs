//! Bounds that both sides of the kernel boundary rely on.

/// Segments of one `readv`, `writev` or `sendmsg` call that are followed; what lies in later ones is counted as lost.
///
/// Node writes up to 8 at once; 32 leaves room and keeps the verifier's work small on 5.10.
pub const MAX_SEGMENTS: u32 = 32;

/// Bytes of one call that are captured from its head, in pieces; of a longer call also the last [`TAIL_BYTES`].
pub const MAX_CALL_BYTES: u64 = 1 << 20;

/// Bytes captured from the end of a call longer than [`MAX_CALL_BYTES`], since Node writes a message's id last.
pub const TAIL_BYTES: u64 = 64 << 10;

/// Bytes looked at in each call on a stream under [`crate::stream::Verdict::HeadsOnly`].
pub const HEAD_BYTES: u32 = 256;

/// Bytes of the largest record in the ring, head included.
pub const MAX_RECORD_BYTES: usize = 64 << 10;

/// Calls in progress that are remembered between entry and return, one a thread.
pub const MAX_OPEN_CALLS: u32 = 64 << 10;

/// Streams that the kernel side remembers at once; the least recently used are forgotten first.
pub const MAX_KERNEL_STREAMS: u32 = 64 << 10;

/// Processes that `--pid` can follow at once, descendants included.
pub const MAX_SCOPED_PROCESSES: u32 = 32 << 10;

/// Control groups that `--cgroup` can follow at once, descendants included.
pub const MAX_SCOPED_CGROUPS: u32 = 16 << 10;

/// Where in rustls' `CommonState` the `Box<dyn MessageEncrypter>` of its record layer is. The daemon looks at the code that drops one.
pub const RUSTLS_ENCRYPTER: u64 = 16;
