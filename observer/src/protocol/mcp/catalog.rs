//! What a server offers: its tools, prompts and resources, put together from the pages of a listing, and what changed.
//!
//! Two listings are compared only when the same principal asked for them: a server may show others other things.

use std::sync::Arc;

use bytes::Bytes;

use super::method::{MAX_NAME, cut};
use super::peer::PeerKey;
use super::reply::Part;
use crate::protocol::digest::{Digest, Fingerprint};
use crate::protocol::json::{Fault, Scanner};
use crate::protocol::observation::Parties;
use crate::protocol::recent::Recent;

/// Catalogs remembered: one for each server, kind and principal.
const MAX_CATALOGS: usize = 1024;

/// Items of one catalog that are looked at.
const MAX_ITEMS: usize = 4096;

/// Bytes of one page that are looked at: each value in it is hashed, which takes tens of milliseconds for that many.
const MAX_PAGE_BYTES: usize = 512 << 10;

/// Items of all catalogs together; the oldest catalogs make room. Each is about a hundred bytes.
const MAX_ALL_ITEMS: usize = 65_536;

/// Names that one observation tells of one kind of change.
const MAX_TOLD: usize = 256;

/// Kinds of catalog; the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CatalogKind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    ResourceTemplates,
}

impl CatalogKind {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resource_templates",
        }
    }

    /// What a part of a result lists, if anything.
    pub(crate) const fn of(part: Part) -> Option<Self> {
        match part {
            Part::Tools => Some(Self::Tools),
            Part::Prompts => Some(Self::Prompts),
            Part::Resources => Some(Self::Resources),
            Part::Templates => Some(Self::ResourceTemplates),
            Part::Structured => None,
        }
    }

    /// The member that tells items apart.
    const fn identity(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::ResourceTemplates => "uriTemplate",
        }
    }
}

/// A listing that came to its end and says something new.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// Who listed, and what.
    pub parties: Parties,
    /// What was listed.
    pub kind: CatalogKind,
    /// How many items.
    pub items: u64,
    /// Bytes of their definitions as JSON text.
    pub bytes: u64,
    /// Of all definitions together, in any order.
    pub fingerprint: Fingerprint,
    /// Against the listing before; `None` for the first.
    pub change: Option<CatalogChange>,
}

/// What changed between two listings, each by name, at most 256 of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogChange {
    /// New items.
    pub added: Vec<CatalogItem>,
    /// Items that are gone, with their last fingerprint.
    pub removed: Vec<CatalogItem>,
    /// Items with another definition, with their new fingerprint.
    pub altered: Vec<CatalogItem>,
}

/// One item of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogItem {
    /// `name`.
    pub name: String,
    /// Of its definition.
    pub fingerprint: Fingerprint,
}

/// Whose catalog: a server's, as a principal sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shelf {
    pub(crate) server: PeerKey,
    pub(crate) principal: Digest,
    pub(crate) kind: CatalogKind,
}

/// One page of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    /// The cursor it was asked for with.
    pub(crate) cursor: Option<Digest>,
    /// The cursor of the page after it.
    pub(crate) next: Option<Digest>,
    /// The array, as JSON text.
    pub(crate) text: &'a Bytes,
}

/// An item as a page tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    identity: Digest,
    pub(crate) name: Arc<str>,
    fingerprint: Fingerprint,
    /// `outputSchema`, as JSON text.
    pub(crate) schema: Option<Bytes>,
}

/// The catalogs that are remembered.
#[derive(Debug)]
pub(crate) struct Catalogs {
    known: Recent<Shelf, Known>,
    /// Items of all of them.
    items: usize,
}

#[derive(Debug, Default)]
struct Known {
    whole: Option<Listing>,
    /// A listing that waits for its next page.
    open: Option<(Digest, Listing)>,
}

#[derive(Debug, Default)]
struct Listing {
    /// Of the pages' texts: equal texts need no second look.
    text: Digest,
    /// By identity.
    items: Vec<(Digest, CatalogItem)>,
    count: u64,
    bytes: u64,
}

impl Default for Catalogs {
    fn default() -> Self {
        Self {
            known: Recent::new(MAX_CATALOGS),
            items: 0,
        }
    }
}

impl Catalogs {
    /// Whether this page is a whole listing, and the same text as the one before.
    pub(crate) fn is_known(&self, shelf: &Shelf, page: &Page<'_>) -> bool {
        let single = page.cursor.is_none() && page.next.is_none();
        let whole = self.known.get(shelf).and_then(|known| known.whole.as_ref());
        single && whole.is_some_and(|whole| whole.text == Digest::default().then(page.text))
    }

    /// Takes in a page; what is new is told when the listing is at its end.
    pub(crate) fn turn(
        &mut self,
        shelf: &Shelf,
        page: &Page<'_>,
        entries: &[Entry],
        parties: &Parties,
    ) -> Option<Catalog> {
        let known = self.known.entry(shelf.clone(), Known::default);
        let begun = known.open.take();
        self.items -= begun.as_ref().map_or(0, |(_, listing)| listing.items.len());
        let mut listing = match (page.cursor, begun) {
            (None, _) => Listing::default(),
            (Some(cursor), Some((expected, listing))) if cursor == expected => listing,
            // A page whose begin was not seen, or of another listing.
            (Some(_), _) => return None,
        };
        listing.add(page, entries);
        self.items += listing.items.len();
        if let Some(next) = page.next {
            known.open = Some((next, listing));
            self.make_room();
            return None;
        }
        listing.items.sort_unstable_by_key(|(identity, _)| *identity);
        let before = known.whole.replace(listing);
        self.items -= before.as_ref().map_or(0, |before| before.items.len());
        let told = known
            .whole
            .as_ref()
            .and_then(|now| now.tell(shelf.kind, before.as_ref(), parties));
        self.make_room();
        told
    }

    fn make_room(&mut self) {
        while self.items > MAX_ALL_ITEMS {
            let Some((_, oldest)) = self.known.pop_oldest() else {
                return;
            };
            let listings = oldest.whole.into_iter().chain(oldest.open.map(|(_, listing)| listing));
            self.items -= listings.map(|listing| listing.items.len()).sum::<usize>();
        }
    }

    /// Catalogs forgotten so far because there were too many.
    pub(crate) const fn evictions(&self) -> u64 {
        self.known.evictions
    }
}

impl Listing {
    fn add(&mut self, page: &Page<'_>, entries: &[Entry]) {
        self.text = self.text.then(page.text);
        self.count += entries.len() as u64;
        self.bytes += page.text.len() as u64;
        let room = MAX_ITEMS - self.items.len();
        self.items.extend(entries.iter().take(room).map(|entry| {
            let item = CatalogItem {
                name: entry.name.to_string(),
                fingerprint: entry.fingerprint,
            };
            (entry.identity, item)
        }));
    }

    fn tell(&self, kind: CatalogKind, before: Option<&Self>, parties: &Parties) -> Option<Catalog> {
        let change = before.map(|before| before.changes(self));
        if change
            .as_ref()
            .is_some_and(|change| *change == CatalogChange::default())
        {
            return None;
        }
        Some(Catalog {
            parties: parties.clone(),
            kind,
            items: self.count,
            bytes: self.bytes,
            fingerprint: Fingerprint::of_all(self.items.iter().map(|(_, item)| item.fingerprint)),
            change,
        })
    }

    fn find(&self, identity: Digest) -> Option<&CatalogItem> {
        let at = self
            .items
            .binary_search_by_key(&identity, |(identity, _)| *identity)
            .ok()?;
        Some(&self.items[at].1)
    }

    fn changes(&self, after: &Self) -> CatalogChange {
        let told = |items: &mut dyn Iterator<Item = &CatalogItem>| -> Vec<CatalogItem> {
            let mut items: Vec<CatalogItem> = items.cloned().collect();
            items.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            items.truncate(MAX_TOLD);
            items
        };
        let pairs = || after.items.iter().map(|(identity, item)| (self.find(*identity), item));
        CatalogChange {
            added: told(&mut pairs().filter(|(before, _)| before.is_none()).map(|(_, item)| item)),
            removed: told(
                &mut self
                    .items
                    .iter()
                    .filter(|(identity, _)| after.find(*identity).is_none())
                    .map(|(_, item)| item),
            ),
            altered: told(
                &mut pairs()
                    .filter(|(before, item)| before.is_some_and(|before| before.fingerprint != item.fingerprint))
                    .map(|(_, item)| item),
            ),
        }
    }
}

/// Reads a page; of one that is cut or too long, the items that are whole.
pub(crate) fn entries(kind: CatalogKind, text: &Bytes) -> Vec<Entry> {
    let mut found = Vec::new();
    let text = text.slice(..text.len().min(MAX_PAGE_BYTES));
    let mut scanner = Scanner::new(&text);
    // A fault is the end of what can be read; the message as a whole was judged before.
    let _ = scanner.items(&mut |scanner| {
        if found.len() == MAX_ITEMS {
            return Err(Fault::Cut);
        }
        found.push(Entry::read(kind, scanner, &text)?);
        Ok(())
    });
    found
}

impl Entry {
    fn read(kind: CatalogKind, scanner: &mut Scanner<'_>, source: &Bytes) -> Result<Self, Fault> {
        let mut members = scanner.clone();
        let fingerprint = Fingerprint::read(scanner)?;
        let mut entry = Self {
            identity: Digest::default(),
            name: "".into(),
            fingerprint,
            schema: None,
        };
        members.members(&mut |scanner, key| {
            if key == b"outputSchema" {
                entry.schema = Some(source.slice_ref(scanner.raw()?));
                return Ok(());
            }
            let identifies = key == kind.identity().as_bytes();
            if !identifies && key != b"name" {
                return scanner.skip();
            }
            let text = scanner.string_value()?.unwrap_or_default();
            if identifies {
                entry.identity = Digest::of(&*text);
            }
            if key == b"name" {
                entry.name = cut(&text, MAX_NAME).into();
            }
            Ok(())
        })?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::Pid;
    use crate::protocol::observation::{NetworkTransport, Party, Transport, Vantage};

    fn parties() -> Parties {
        Parties {
            client: Party::default(),
            server: Party::default(),
            transport: Transport::Stdio,
            network: NetworkTransport::Pipe,
            tls: false,
            vantage: Vantage::Server,
            authority: None,
            lossy: false,
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut catalogs = Catalogs::default();
        let tools: Vec<String> = (0..5000).map(|n| format!(r#"{{"name":"t{n}"}}"#)).collect();
        let text = Bytes::from(format!("[{}]", tools.join(",")));
        let page = Page {
            cursor: None,
            next: None,
            text: &text,
        };
        let entries = entries(CatalogKind::Tools, &text);
        assert_eq!(entries.len(), MAX_ITEMS);
        for server in 0..40 {
            let shelf = Shelf {
                server: PeerKey::Process(Pid(server)),
                principal: Digest::default(),
                kind: CatalogKind::Tools,
            };
            assert!(catalogs.turn(&shelf, &page, &entries, &parties()).is_some());
            assert!(catalogs.is_known(&shelf, &page));
        }
        assert_eq!((catalogs.items, catalogs.evictions()), (MAX_ALL_ITEMS, 24));
    }
}
