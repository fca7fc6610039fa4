//! A map that forgets its oldest entries beyond a bound.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// A bounded map; what was inserted first is forgotten first.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: FxHashMap<K, V>,
    order: VecDeque<K>,
    bound: usize,
    /// Entries forgotten so far.
    pub(crate) evictions: u64,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            entries: FxHashMap::default(),
            order: VecDeque::new(),
            bound,
            evictions: 0,
        }
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key)
    }

    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a new entry takes the place of the oldest.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.bound
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// The entry of `key`, made by `default` where there is none.
    pub(crate) fn entry(&mut self, key: K, default: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.make_room();
            self.order.push_back(key.clone());
        }
        self.entries.entry(key).or_insert_with(default)
    }

    /// Forgets the oldest entry.
    pub(crate) fn pop_oldest(&mut self) -> Option<(K, V)> {
        while let Some(key) = self.order.pop_front() {
            if let Some(value) = self.entries.remove(&key) {
                self.evictions += 1;
                return Some((key, value));
            }
        }
        None
    }

    /// Keeps the entries that `keep` says so of.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        self.entries.retain(|_, value| keep(value));
    }

    fn make_room(&mut self) {
        while self.is_full() && self.pop_oldest().is_some() {}
        // Keys removed by name leave their place in the order behind.
        if self.order.len() > 2 * self.bound {
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key));
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let mut recent = Recent::new(3);
        for key in 0..10 {
            recent.entry(key, || key);
        }
        assert_eq!((recent.len(), recent.evictions), (3, 7));
        assert_eq!((recent.get(&6), recent.get(&9)), (None, Some(&9)));
        for key in 100..1000 {
            recent.entry(key, || key);
            recent.remove(&key);
        }
        assert!(recent.order.len() <= 7);
    }
}
