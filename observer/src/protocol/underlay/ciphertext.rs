//! What plain text looks like when it is encrypted.

/// Bytes of plain text in one record, and what a record may have around them (RFC 8446 section 5.2, RFC 5246 section 6.2).
const RECORD: u64 = 16 << 10;
const LEAST_AROUND: u64 = 17;
const MOST_AROUND: u64 = 64;

/// What may go with it in one call: the end of a handshake, session tickets.
const BESIDE: u64 = 1024;

/// Whether bytes begin a record of TLS 1.0 to 1.3 (RFC 8446 section 5.1): change cipher spec, alert, handshake or application data.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=23, 3, 0..=4, ..])
}

/// Whether so much ciphertext may hold just so much plain text of so many calls.
pub(super) const fn go_together(plain: u64, calls: u64, cipher: u64) -> bool {
    let records = calls + plain / RECORD;
    cipher >= plain + LEAST_AROUND && cipher <= plain + records * MOST_AROUND + BESIDE
}
