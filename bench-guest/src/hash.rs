//! A hash table with open addressing and linear probing: insert, look up, delete.

use super::{Random, fold};
use std::sync::Mutex;

const BITS: u32 = 14;
const SLOTS: usize = 1 << BITS;
/// How many keys a round inserts: the table is half full.
const KEYS: u32 = 1 << (BITS - 1);

/// A table from non-zero keys to values; the key 0 marks a free slot.
struct Table {
    slots: Vec<(u32, u32)>,
}

/// An empty table, kept because a fresh one would cost page faults.
static TABLE: Mutex<Option<Table>> = Mutex::new(None);

impl Table {
    fn new() -> Self {
        Self { slots: vec![(0, 0); SLOTS] }
    }

    fn home(key: u32) -> usize {
        (key.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
    }

    /// The slot that holds `key`, or else the free one where it belongs.
    fn find(&self, key: u32) -> usize {
        let mut at = Self::home(key);
        while self.slots[at].0 != key && self.slots[at].0 != 0 {
            at = (at + 1) % SLOTS;
        }
        at
    }

    fn insert(&mut self, key: u32, value: u32) {
        let at = self.find(key);
        self.slots[at] = (key, value);
    }

    fn get(&self, key: u32) -> Option<u32> {
        let (found, value) = self.slots[self.find(key)];
        (found == key).then_some(value)
    }

    /// Frees the slot of `key` and moves back what had been pushed past it.
    fn remove(&mut self, key: u32) {
        let mut free = self.find(key);
        self.slots[free] = (0, 0);
        let mut at = free;
        loop {
            at = (at + 1) % SLOTS;
            let entry = self.slots[at];
            if entry.0 == 0 {
                return;
            }
            // It may move when its home is not between the free slot and its own.
            let distance = |from: usize| at.wrapping_sub(from) % SLOTS;
            if distance(Self::home(entry.0)) >= distance(free) {
                self.slots[free] = entry;
                self.slots[at] = (0, 0);
                free = at;
            }
        }
    }
}

/// Fills the table with random keys, looks up as many again, half of them absent, and deletes all.
pub fn run(iterations: u64) -> u64 {
    let mut table = TABLE.lock().expect("no thread panics");
    let table = table.get_or_insert_with(Table::new);
    let mut sum = 0;
    for i in 0..iterations {
        let mut random = Random(i);
        for n in 0..KEYS {
            table.insert(random.next() | 1, n);
        }
        let mut random = Random(i);
        for _ in 0..KEYS / 2 {
            let key = random.next();
            let found = table.get(key | 1).unwrap_or(0);
            // Even keys were never inserted.
            let absent = table.get(key & !1 | 2).is_some();
            sum = fold(sum, u64::from(found) + u64::from(absent));
        }
        let mut random = Random(i);
        for _ in 0..KEYS {
            table.remove(random.next() | 1);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_agrees_with_the_standard_library() {
        let (mut table, mut map) = (Table::new(), HashMap::new());
        let mut random = Random(7);
        for n in 0..100_000 {
            let key = random.next() % 4_001 + 1;
            if random.next().is_multiple_of(3) {
                table.remove(key);
                map.remove(&key);
            } else {
                table.insert(key, n);
                map.insert(key, n);
            }
            let key = random.next() % 4_001 + 1;
            assert_eq!(table.get(key), map.get(&key).copied());
        }
        assert!(map.len() > 1_000);
    }
}
