//! A virtqueue: chains of buffers in guest memory, from the driver to the device and back.
//!
//! Split form: a table of descriptors, a ring of heads that are available, a ring of heads that
//! are used. Packed form: one ring of descriptors, in which two bits and a wrap counter tell whose
//! a descriptor is. Either may point to a table of more descriptors (indirect). [`Queue::pop`]
//! takes a chain, [`Queue::push`] gives it back, in any order.
//!
//! What the driver writes is not to be trusted. An index outside its table, a loop, a buffer to
//! read behind one to write, more chains than the queue holds: the queue is broken, gives nothing
//! more, and the transport asks for a reset. Lengths are not looked at here: nothing is reserved by
//! them.
//!
//! Interrupts: after chains were pushed, [`Queue::interrupts`] says whether the driver wants to
//! know, by its flags or by the index that it waits for. Notifications are never switched off: the
//! driver's only pause is the index that it is told when a queue was found empty.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, sections 2.6 to 2.8.

use emu_core::mem::Memory;

/// Descriptor flags (2.7.5, 2.8.1).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Of the packed form: the driver's and the device's bit.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// The driver wants no interrupts: split and packed, and packed: at an index only.
const NO_INTERRUPT: u16 = 1;
const AT_INDEX: u16 = 2;
/// Descriptors of a chain, with those of its indirect table.
const LONGEST: usize = 1024;

/// A part of guest memory: address and length.
pub type Buffer = (u64, u32);

/// A chain of buffers, on its way through the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The head's index (split) or the buffer ID (packed).
    id: u16,
    /// Descriptors that it takes in a packed ring.
    slots: u16,
    /// What the driver has written for the device.
    pub readable: Vec<Buffer>,
    /// What the device writes for the driver.
    pub writable: Vec<Buffer>,
}

fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|b| u64::from(b.1)).sum()
}

/// Calls `each` with the pieces of `len` bytes from `skip` on: address and place from 0.
fn pieces(
    buffers: &[Buffer],
    skip: u64,
    len: usize,
    mut each: impl FnMut(u64, usize, usize),
) -> usize {
    let (mut skip, mut at) = (skip, 0);
    for &(address, size) in buffers {
        let size = u64::from(size);
        let here = skip.min(size);
        skip -= here;
        let n = (size - here).min((len - at) as u64) as usize;
        if n != 0 {
            each(address.wrapping_add(here), at, n);
            at += n;
        }
    }
    at
}

impl Chain {
    /// Bytes to read.
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes to write.
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Reads the driver's bytes from `skip` on; gives how many there were.
    pub fn read(&self, memory: &Memory, skip: u64, buf: &mut [u8]) -> usize {
        let len = buf.len();
        pieces(&self.readable, skip, len, |pa, at, n| memory.read(pa, &mut buf[at..at + n]))
    }

    /// Writes bytes for the driver from `skip` on; gives how many there was room for.
    pub fn write(&self, memory: &Memory, skip: u64, data: &[u8]) -> usize {
        pieces(&self.writable, skip, data.len(), |pa, at, n| memory.write(pa, &data[at..at + n]))
    }
}

/// What the driver has set up for a queue, and how far the device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Entries, at most.
    pub max: u16,
    /// Entries.
    pub size: u16,
    /// It is in use.
    pub enabled: bool,
    /// The descriptor area, driver area and device area.
    pub areas: [u64; 3],
    /// The driver broke the rules.
    pub broken: bool,
    packed: bool,
    event_index: bool,
    /// The next index to take (counts on in the split form), and its wrap counter.
    next_avail: u16,
    avail_wrap: bool,
    /// The next index to give back.
    next_used: u16,
    used_wrap: bool,
    /// Where that was when the driver was last asked; `None` when it has gone round since.
    asked_at: Option<u16>,
    pushed: bool,
    /// Chains that the device has.
    out: u16,
}

#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    /// Buffer ID of the packed form.
    id: u16,
    flags: u16,
    /// Next descriptor of the split form.
    next: u16,
}

/// The driver broke the rules.
struct Broken;

impl Queue {
    /// A queue of `max` entries, not in use.
    #[must_use]
    pub fn new(max: u16) -> Queue {
        Queue { max, size: max, ..Queue::default() }
    }

    /// The driver puts it in use, in the form and with the features it has chosen.
    pub fn enable(&mut self, packed: bool, event_index: bool) {
        self.enabled = self.size != 0 && (packed || self.size.is_power_of_two());
        (self.packed, self.event_index) = (packed, event_index);
        (self.avail_wrap, self.used_wrap, self.asked_at) = (true, true, Some(0));
    }

    /// Tells the driver that it shall notify: what is in its memory may say otherwise.
    pub fn ask_for_notifications(&self, memory: &Memory) {
        if self.enabled {
            self.put(memory, 2, if self.packed { 2 } else { 0 }, 0);
        }
    }

    /// Whether the device may take and give chains.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.enabled && !self.broken
    }

    fn at(&self, area: usize, offset: u64) -> u64 {
        self.areas[area].wrapping_add(offset)
    }

    fn word(&self, memory: &Memory, area: usize, offset: u64) -> u16 {
        u16::from_le_bytes(memory.read_array(self.at(area, offset)))
    }

    fn put(&self, memory: &Memory, area: usize, offset: u64, value: u16) {
        memory.write(self.at(area, offset), &value.to_le_bytes());
    }

    /// Takes the next chain, if there is one.
    pub fn pop(&mut self, memory: &Memory) -> Option<Chain> {
        if !self.is_live() {
            return None;
        }
        let taken = if self.packed { self.pop_packed(memory) } else { self.pop_split(memory) };
        match taken {
            Ok(chain) => {
                self.out += u16::from(chain.is_some());
                chain
            }
            Err(Broken) => {
                self.broken = true;
                None
            }
        }
    }

    fn pop_split(&mut self, memory: &Memory) -> Result<Option<Chain>, Broken> {
        let mut waiting = self.word(memory, 1, 2).wrapping_sub(self.next_avail);
        if waiting == 0 && self.event_index {
            // The driver notifies when it goes beyond this; it may have done so meanwhile.
            self.put(memory, 2, 4 + 8 * u64::from(self.size), self.next_avail);
            waiting = self.word(memory, 1, 2).wrapping_sub(self.next_avail);
        }
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.size || self.out >= self.size {
            return Err(Broken);
        }
        let place = self.next_avail & (self.size - 1);
        let head = self.word(memory, 1, 4 + 2 * u64::from(place));
        let mut chain = Chain { id: head, ..Chain::default() };
        let (mut table, mut entries, mut next) = (self.areas[0], u32::from(self.size), head);
        let mut indirect = false;
        for _ in 0..LONGEST {
            if u32::from(next) >= entries {
                return Err(Broken);
            }
            let d = split_descriptor(memory, table.wrapping_add(16 * u64::from(next)));
            if d.flags & INDIRECT != 0 {
                if indirect || d.flags & NEXT != 0 {
                    return Err(Broken);
                }
                (table, entries, next, indirect) = (d.address, entries_in(&d)?, 0, true);
                continue;
            }
            chain.add(&d)?;
            if d.flags & NEXT == 0 {
                self.next_avail = self.next_avail.wrapping_add(1);
                return Ok(Some(chain));
            }
            next = d.next;
        }
        Err(Broken)
    }

    fn packed_descriptor(&self, memory: &Memory, index: u16) -> Descriptor {
        packed_descriptor(memory, self.at(0, 16 * u64::from(index)))
    }

    fn pop_packed(&mut self, memory: &Memory) -> Result<Option<Chain>, Broken> {
        let first = self.packed_descriptor(memory, self.next_avail);
        let (avail, used) = (first.flags & AVAIL != 0, first.flags & USED != 0);
        if avail != self.avail_wrap || used == self.avail_wrap {
            return Ok(None);
        }
        if self.out >= self.size {
            return Err(Broken);
        }
        let mut chain = Chain::default();
        let mut d = first;
        loop {
            chain.slots += 1;
            chain.id = d.id;
            if d.flags & INDIRECT != 0 {
                if chain.slots != 1 || d.flags & NEXT != 0 {
                    return Err(Broken);
                }
                for n in 0..u64::from(entries_in(&d)?) {
                    let inner = packed_descriptor(memory, d.address.wrapping_add(16 * n));
                    if inner.flags & INDIRECT != 0 {
                        return Err(Broken);
                    }
                    chain.add(&inner)?;
                }
            } else {
                chain.add(&d)?;
            }
            self.next_avail += 1;
            if self.next_avail >= self.size {
                (self.next_avail, self.avail_wrap) = (0, !self.avail_wrap);
            }
            if d.flags & NEXT == 0 {
                return Ok(Some(chain));
            }
            if chain.slots >= self.size {
                return Err(Broken);
            }
            d = self.packed_descriptor(memory, self.next_avail);
        }
    }

    /// Gives a chain back, of which the device has written the first `written` bytes.
    pub fn push(&mut self, memory: &Memory, chain: &Chain, written: u32) {
        if !self.is_live() || self.out == 0 {
            return;
        }
        self.out -= 1;
        self.pushed = true;
        if !self.packed {
            let place = u64::from(self.next_used & (self.size - 1));
            let mut element = [0; 8];
            element[..4].copy_from_slice(&u32::from(chain.id).to_le_bytes());
            element[4..].copy_from_slice(&written.to_le_bytes());
            memory.write(self.at(2, 4 + 8 * place), &element);
            self.next_used = self.next_used.wrapping_add(1);
            self.put(memory, 2, 2, self.next_used);
            return;
        }
        let wrap = if self.used_wrap { AVAIL | USED } else { 0 };
        let flags = wrap | if written != 0 { WRITE } else { 0 };
        let at = 16 * u64::from(self.next_used);
        let mut body = [0; 6];
        body[..4].copy_from_slice(&written.to_le_bytes());
        body[4..].copy_from_slice(&chain.id.to_le_bytes());
        memory.write(self.at(0, at + 8), &body);
        // The flags give it to the driver: they come last.
        self.put(memory, 0, at + 14, flags);
        self.next_used += chain.slots;
        if self.next_used >= self.size {
            (self.next_used, self.used_wrap) = (self.next_used - self.size, !self.used_wrap);
            self.asked_at = None;
        }
    }

    /// Whether the driver wants an interrupt for what was pushed since this was last asked.
    pub fn interrupts(&mut self, memory: &Memory) -> bool {
        if !std::mem::take(&mut self.pushed) || !self.is_live() {
            return false;
        }
        let (new, old) = (self.next_used, self.asked_at.replace(self.next_used));
        let passed = |event: u16| {
            old.is_none_or(|old| new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        };
        if !self.packed {
            return match self.event_index {
                true => passed(self.word(memory, 1, 4 + 2 * u64::from(self.size))),
                false => self.word(memory, 1, 0) & NO_INTERRUPT == 0,
            };
        }
        let (event, flags) = (self.word(memory, 1, 0), self.word(memory, 1, 2));
        match flags {
            NO_INTERRUPT => false,
            AT_INDEX if self.event_index => {
                let (index, wrap) = (event & 0x7fff, event >> 15 != 0);
                let round = if wrap == self.used_wrap { 0 } else { self.size };
                passed(index.wrapping_sub(round))
            }
            _ => true,
        }
    }
}

impl Chain {
    fn add(&mut self, d: &Descriptor) -> Result<(), Broken> {
        if self.readable.len() + self.writable.len() >= LONGEST {
            return Err(Broken);
        }
        if d.flags & WRITE != 0 {
            self.writable.push((d.address, d.len));
        } else if self.writable.is_empty() {
            self.readable.push((d.address, d.len));
        } else {
            return Err(Broken);
        }
        Ok(())
    }
}

/// Entries of the table that an indirect descriptor points to.
fn entries_in(d: &Descriptor) -> Result<u32, Broken> {
    let fits = d.len != 0 && d.len.is_multiple_of(16) && d.len as usize / 16 <= LONGEST;
    if fits { Ok(d.len / 16) } else { Err(Broken) }
}

fn fields(memory: &Memory, at: u64) -> (u64, u32, u16, u16) {
    let raw = u128::from_le_bytes(memory.read_array(at));
    (raw as u64, (raw >> 64) as u32, (raw >> 96) as u16, (raw >> 112) as u16)
}

fn split_descriptor(memory: &Memory, at: u64) -> Descriptor {
    let (address, len, flags, next) = fields(memory, at);
    Descriptor { address, len, id: 0, flags, next }
}

fn packed_descriptor(memory: &Memory, at: u64) -> Descriptor {
    let (address, len, id, flags) = fields(memory, at);
    Descriptor { address, len, id, flags, next: 0 }
}
