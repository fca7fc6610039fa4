//! Why bytes were not seen. One closed set for the kernel side and the daemon alike; each is a label of
//! `mcp_observer_lost_total`.

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $value:literal, $label:literal; )+) => {
        /// Why bytes or records were not seen.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason { $( $(#[doc = $doc])+ $name = $value, )+ }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [DropReason] = &[ $( DropReason::$name, )+ ];

            /// The value of the metric label `reason`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $( DropReason::$name => $label, )+ }
            }

            /// Reads the byte of a record; `None` for 0 and for values that this version does not know.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $( $value => Some(DropReason::$name), )+ _ => None }
            }
        }
    };
}

reasons! {
    // Kernel side.
    /// The ring was full; the bytes are lost.
    RingFull = 1, "ring_full";
    /// User memory could not be read when the call returned.
    Fault = 2, "fault";
    /// The call had more segments than [`crate::limits::MAX_SEGMENTS`].
    Segments = 3, "segments";
    /// The middle of a call longer than [`crate::limits::MAX_CALL_BYTES`].
    CallTooLong = 4, "call_too_long";
    /// The bytes came from kernel buffers (sendfile, splice): their number is known, their content is not.
    Opaque = 5, "opaque";
    /// A table of the kernel side was full; the call was not followed.
    TableFull = 6, "table_full";
    /// A 32-bit system call of a 64-bit kernel, which the syscall backend cannot decode.
    Compat = 7, "compat";
    /// A read that was in progress when the observer attached: its bytes were not seen.
    ReadBeforeAttach = 8, "read_before_attach";
    /// Bytes that passed between two calls seen, by a way no probe covers (splice, io_uring under the syscall backend), or through a
    /// TLS library while it was given its probes.
    Unprobed = 9, "unprobed";
    /// An iterator of a kind this version does not know.
    UnknownIterator = 10, "unknown_iterator";
    // The daemon.
    /// A piece that never came: the reassembler waited its bounded time for it.
    Missing = 32, "missing";
    /// A stream was evicted because there were more than `--max-streams`.
    StreamEvicted = 33, "stream_evicted";
    /// A message was longer than `--max-stream-bytes`.
    StreamTooLong = 34, "stream_too_long";
    /// Bytes before the first message boundary of a stream joined in the middle.
    JoinedMiddle = 35, "joined_middle";
    /// The framer lost its place after a gap or bad input and skipped to the next boundary.
    Resync = 36, "resync";
    /// A response whose request was never seen.
    OrphanResponse = 37, "orphan_response";
    /// A request was evicted because too many were pending.
    RequestEvicted = 38, "request_evicted";
    /// Bytes that were held while it was unknown whether the stream is MCP, and that turned out too many.
    HeldTooLong = 39, "held_too_long";
    /// A record of the ring that could not be decoded.
    BadRecord = 40, "bad_record";
    /// A sink's queue was full; its observations are missing there.
    SinkQueue = 41, "sink_queue";
    /// The stream ended in the middle of a message.
    CutShort = 42, "cut_short";
    /// A connection of MCP that went over to WebSocket, which is not read.
    WebSocket = 43, "websocket";
    /// A connection with gRPC that carries MCP too or whose service is named after it: gRPC is not read.
    Grpc = 44, "grpc";
    /// A connection of MCP whose server offers HTTP/3, which is UDP and not seen: calls may go there.
    Http3 = 45, "http3";
    /// A stream was evicted because all streams together held more than `--max-held-bytes`.
    HeldEvicted = 46, "held_evicted";
}

/// Reasons of the kernel side are below this number; its counters have this many slots.
pub const KERNEL_REASONS: u32 = 32;

/// The slot of what is no loss of bytes: returns of calls on which the kernel ran no program.
pub const MISSED_RETURNS: u32 = KERNEL_REASONS - 1;

/// One slot of the kernel side's per-CPU counters, indexed by [`DropReason`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCount {
    /// Times it happened.
    pub events: u64,
    /// Bytes concerned, where their number is known.
    pub bytes: u64,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, two `u64`, no padding, every bit pattern valid.
unsafe impl aya::Pod for DropCount {}
