//! The tables that fields are named by: the static one and the one both ends keep (RFC 7541, section 2.3 and appendix A).
//!
//! What was put in before the observer came, or in a hole, is not known and stays so: indices count from the entry put in last,
//! so that every entry put in since is found whatever lies behind it.

use std::collections::VecDeque;

/// What an entry costs beside its texts (section 4.1).
const OVERHEAD: usize = 32;

/// Size of the table before either end says otherwise (RFC 9113, section 6.5.2).
const INITIAL_SIZE: usize = 4096;

/// Bytes that are kept: browsers ask for 64 KiB, nobody for more. Entries beyond are forgotten, hence not known.
const MAX_SIZE: usize = 64 << 10;

/// Bytes of a name: no field that matters has a longer one, and what names an entry costs two bytes. A longer one is not known.
const MAX_NAME: usize = 256;

/// A field as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) name: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

/// A field that was put in.
#[derive(Debug)]
struct Entry {
    name: Option<Box<[u8]>>,
    value: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        OVERHEAD + self.name.as_ref().map_or(0, |name| name.len()) + self.value.len()
    }
}

/// Both tables.
#[derive(Debug)]
pub(super) struct Table {
    /// What was put in last comes first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: INITIAL_SIZE,
        }
    }

    /// The field of an index; one that was never seen is not known.
    pub(super) fn get(&self, index: usize) -> Field<'_> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|index| STATIC.get(index)) {
            return Field {
                name: Some(name.as_bytes()),
                value: Some(value.as_bytes()),
            };
        }
        let entry = index
            .checked_sub(STATIC.len() + 1)
            .and_then(|index| self.entries.get(index));
        Field {
            name: entry.and_then(|entry| entry.name.as_deref()),
            value: entry.map(|entry| &*entry.value),
        }
    }

    pub(super) fn insert(&mut self, name: Option<&[u8]>, value: &[u8]) {
        let entry = Entry {
            name: name.filter(|name| name.len() <= MAX_NAME).map(Into::into),
            value: value.into(),
        };
        self.size += entry.size();
        self.entries.push_front(entry);
        self.evict();
    }

    /// The encoder changes the size of its table (section 6.3).
    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size.min(MAX_SIZE);
        self.evict();
    }

    /// Fields were put in unseen, or the size was changed: nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        self.size = 0;
        // What is kept for longer than the encoder keeps it does no harm: it is not named any more.
        self.max_size = MAX_SIZE;
    }

    fn evict(&mut self) {
        while self.size > self.max_size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size();
        }
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }
}

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
