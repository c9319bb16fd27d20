//! What all PCI functions share: configuration space with its header, base address registers,
//! capabilities and interrupts; and the [`PciDevice`] that a board lends accesses to.
//!
//! A function's configuration space is 256 bytes, a mask of the bits a guest may change and a mask
//! of the bits that it clears by writing ones. A base address register is an ordinary dword whose
//! low bits no guest may change: the size probe (write ones, read back) needs nothing else. Where
//! it decodes now is asked for with [`PciConfig::range`], after every write.
//!
//! A device gets what it needs of the machine lent for the time of a call ([`Host`]). Interrupts
//! are levels (INTx) that the board asks for, or messages (MSI, MSI-X) that it takes.
//!
//! Source: PCI Local Bus Specification 3.0: chapter 6 (configuration space), 6.7 (capabilities),
//! 6.8 (MSI and MSI-X).

use crate::pci_host::PciFunction;
use emu_core::mem::Memory;

/// Command register: decode of I/O, of memory, bus mastering, INTx disabled (6.2.2).
const COMMAND: usize = 0x04;
const COMMAND_IO: u8 = 1;
const COMMAND_MEMORY: u8 = 2;
const COMMAND_MASTER: u8 = 4;
const COMMAND_NO_INTX: u8 = 4;
/// Status register: interrupt status, capabilities list.
const STATUS: usize = 0x06;
const STATUS_INTERRUPT: u8 = 8;
const STATUS_CAPABILITIES: u8 = 0x10;
const BARS: usize = 0x10;
const ROM: usize = 0x30;
const CAPABILITIES: usize = 0x34;
const LINE: usize = 0x3c;
const PIN: usize = 0x3d;
const CAP_MSI: u8 = 5;
const CAP_MSIX: u8 = 0x11;
/// Message control of MSI-X: enable, function mask.
const MSIX_ENABLE: u8 = 0x80;
const MSIX_MASK: u8 = 0x40;
/// Where the first capability goes.
const FIRST_CAPABILITY: usize = 0x40;

/// What a function is (6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, sub-class, programming interface, from the highest byte down.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: (u16, u16),
}

/// What a base address register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere, prefetchable; it takes the next register too.
    Memory64,
    /// The expansion ROM; its number is [`ROM_BAR`].
    Rom,
}

/// The number of the expansion ROM's register.
pub const ROM_BAR: usize = 6;

/// Where a base address register decodes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Ports, not memory.
    pub io: bool,
    /// First port or guest-physical address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// An interrupt message: a write of `data` to `address`, which is the local APICs' (SDM Vol. 3,
/// 10.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Guest-physical address.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// What a device is lent for the time of a call.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Nanoseconds since machine start; never runs backwards.
    pub now: u64,
    /// Memory, for bus masters. A device that is not allowed to master the bus
    /// ([`PciConfig::is_master`]) leaves it alone.
    pub memory: &'a Memory,
}

/// A PCI function with its registers behind base address registers.
///
/// The board asks [`intx`](Self::intx), takes messages and looks at the ranges after every call.
pub trait PciDevice: Send {
    /// Its configuration space.
    fn config(&self) -> &PciConfig;
    /// The same, to change.
    fn config_mut(&mut self) -> &mut PciConfig;
    /// The guest has written `size` bytes of configuration space at `offset`.
    fn configured(&mut self, _host: Host, _offset: u8, _size: u8) {}
    /// Reads `size` (1, 2, 4 or 8; at most 4 of ports) bytes at `offset` of base address register
    /// `bar`. `offset + size` is within its length.
    fn read(&mut self, _host: Host, _bar: usize, _offset: u64, _size: u8) -> u64 {
        0
    }
    /// Writes the low `size` bytes of `value`.
    fn write(&mut self, _host: Host, _bar: usize, _offset: u64, _size: u8, _value: u64) {}
    /// The level of its INTx pin; the board has looked at the command register.
    fn intx(&self) -> bool {
        false
    }
    /// The next moment at which it does something by itself.
    fn deadline(&self) -> Option<u64> {
        None
    }
    /// Brings it to the time that has come, and takes what backends have finished.
    fn advance(&mut self, _host: Host) {}
    /// RST#: all but what is in non-volatile memory. Configuration space too.
    fn reset(&mut self);
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Decoder {
    kind: Bar,
    len: u64,
}

/// One entry of an MSI-X table (6.8.2).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    words: [u32; 4],
    pending: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Msix {
    at: usize,
    entries: Vec<Entry>,
}

/// Configuration space of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct PciConfig {
    bytes: Box<[u8; 256]>,
    /// Bits a guest may change.
    writable: Box<[u8; 256]>,
    /// Bits a guest clears by writing ones.
    cleared: Box<[u8; 256]>,
    /// What `bytes` are after a reset.
    initial: Box<[u8; 256]>,
    bars: [Option<Decoder>; 7],
    msi: Option<usize>,
    msix: Option<Msix>,
    /// Where the next capability goes, and the pointer to it.
    free: usize,
    link: usize,
    messages: Vec<Message>,
}

impl PciConfig {
    /// The header of a function (type 0) with interrupt pin `pin` (1 is INTA#, 0 is none).
    #[must_use]
    pub fn new(id: Identity, pin: u8) -> PciConfig {
        let zero = || Box::new([0; 256]);
        let mut c = PciConfig {
            bytes: zero(),
            writable: zero(),
            cleared: zero(),
            initial: zero(),
            bars: [None; 7],
            msi: None,
            msix: None,
            free: FIRST_CAPABILITY,
            link: CAPABILITIES,
            messages: Vec::new(),
        };
        let (class, subsystem) = (id.class.to_le_bytes(), id.subsystem);
        c.set(0x00, &id.vendor.to_le_bytes());
        c.set(0x02, &id.device.to_le_bytes());
        c.set(0x08, &[id.revision, class[0], class[1], class[2]]);
        c.set(0x2c, &subsystem.0.to_le_bytes());
        c.set(0x2e, &subsystem.1.to_le_bytes());
        c.set(PIN, &[pin]);
        c.writable(COMMAND, &[COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER, 1 | COMMAND_NO_INTX]);
        // Cache line size, latency timer, interrupt line.
        c.writable(0x0c, &[0xff, 0xff]);
        c.writable(LINE, &[0xff]);
        c
    }

    /// Sets bytes, now and after each reset; of the device, not of the guest.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            self.bytes[offset + n & 0xff] = byte;
            self.initial[offset + n & 0xff] = byte;
        }
    }

    /// Changes a byte until the next reset; of the device, not of the guest.
    pub fn put(&mut self, offset: usize, byte: u8) {
        self.bytes[offset & 0xff] = byte;
    }

    /// Lets the guest change bits.
    pub fn writable(&mut self, offset: usize, bits: &[u8]) {
        bits.iter().enumerate().for_each(|(n, &b)| self.writable[offset + n & 0xff] |= b);
    }

    /// Lets the guest clear bits by writing ones.
    pub fn write_to_clear(&mut self, offset: usize, bits: &[u8]) {
        bits.iter().enumerate().for_each(|(n, &b)| self.cleared[offset + n & 0xff] |= b);
    }

    /// Adds base address register `n` (or [`ROM_BAR`]) of `len` bytes, a power of two.
    ///
    /// # Panics
    /// When `n` or `len` cannot be: a bug.
    pub fn bar(&mut self, n: usize, kind: Bar, len: u64) {
        assert!(n <= ROM_BAR && len.is_power_of_two() && (kind == Bar::Rom) == (n == ROM_BAR));
        let (low, least) = match kind {
            Bar::Io => (1, 4),
            Bar::Memory32 => (0, 16),
            Bar::Memory64 => (0xc, 16),
            Bar::Rom => (0, 2048),
        };
        assert!(len >= least, "{len} bytes are too few for {kind:?}");
        self.bars[n] = Some(Decoder { kind, len });
        let (at, mask) = (Self::bar_at(n), !(len - 1));
        self.set(at, &[low]);
        self.writable(at, &(mask as u32).to_le_bytes());
        match kind {
            Bar::Memory64 => self.writable(at + 4, &((mask >> 32) as u32).to_le_bytes()),
            Bar::Rom => self.writable(at, &[1]),
            _ => {}
        }
    }

    fn bar_at(n: usize) -> usize {
        if n == ROM_BAR { ROM } else { BARS + 4 * n }
    }

    /// Sets the base of a register after reset: for functions that decode where no firmware placed
    /// them.
    pub fn place(&mut self, n: usize, base: u32) {
        let low = self.bytes[Self::bar_at(n)] & 0xf;
        let mut bytes = base.to_le_bytes();
        bytes[0] |= low;
        self.set(Self::bar_at(n), &bytes);
    }

    /// The base address registers: number, kind, length in bytes.
    pub fn bars(&self) -> impl Iterator<Item = (usize, Bar, u64)> {
        let all = self.bars.iter().enumerate();
        all.filter_map(|(n, d)| d.map(|Decoder { kind, len }| (n, kind, len)))
    }

    /// Where base address register `n` decodes, if it does.
    #[must_use]
    pub fn range(&self, n: usize) -> Option<Range> {
        let Decoder { kind, len } = (*self.bars.get(n)?)?;
        let low = u64::from(self.dword(Self::bar_at(n)));
        let io = kind == Bar::Io;
        let enable = if io { COMMAND_IO } else { COMMAND_MEMORY };
        if self.bytes[COMMAND] & enable == 0 || kind == Bar::Rom && low & 1 == 0 {
            return None;
        }
        let high = if kind == Bar::Memory64 { self.dword(Self::bar_at(n) + 4).into() } else { 0 };
        let base = (high << 32 | low) & !(len - 1);
        // One that is not placed, or is being sized, decodes nothing.
        let limit: u64 = match kind {
            Bar::Io => 1 << 16,
            Bar::Memory64 => 1 << 52,
            _ => (1 << 32) - 1,
        };
        let end = base.checked_add(len)?;
        (base != 0 && end <= limit).then_some(Range { io, base, len })
    }

    /// The dword at `offset`.
    #[must_use]
    pub fn dword(&self, offset: usize) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|n| self.bytes[offset + n & 0xff]))
    }

    /// The byte at `offset`.
    #[must_use]
    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes[offset & 0xff]
    }

    /// Whether the guest lets the function master the bus.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_MASTER != 0
    }

    /// Whether the guest lets the function use its INTx pin.
    #[must_use]
    pub fn intx_enabled(&self) -> bool {
        self.bytes[COMMAND + 1] & COMMAND_NO_INTX == 0
            && !self.msi_enabled()
            && !self.msix_enabled()
    }

    /// Shows the pin's level in the status register.
    pub fn show_intx(&mut self, level: bool) {
        self.bytes[STATUS] =
            self.bytes[STATUS] & !STATUS_INTERRUPT | if level { STATUS_INTERRUPT } else { 0 };
    }

    /// Adds a capability: its ID, and its bytes after the pointer to the next. Gives its offset.
    ///
    /// # Panics
    /// When there is no room: a bug.
    pub fn capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.free;
        assert!(at + 2 + body.len() <= 256, "configuration space is full");
        self.set(self.link, &[at as u8]);
        self.set(STATUS, &[STATUS_CAPABILITIES]);
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        (self.link, self.free) = (at + 1, (at + 2 + body.len()).next_multiple_of(4));
        at
    }

    /// Adds MSI with one message and a 64-bit address (6.8.1).
    pub fn add_msi(&mut self) {
        let at = self.capability(CAP_MSI, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.writable(at + 2, &[1, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        self.msi = Some(at);
    }

    /// Adds MSI-X (6.8.2) with `vectors` entries (1 to 2048), its table at `table` of base address
    /// register `bar` and the pending bits at `pending` of it. The device gives accesses to these
    /// to [`msix_read`](Self::msix_read) and [`msix_write`](Self::msix_write).
    ///
    /// # Panics
    /// When it is no number of vectors: a bug.
    pub fn add_msix(&mut self, bar: u8, vectors: usize, table: u32, pending: u32) {
        assert!((1..=2048).contains(&vectors), "{vectors} MSI-X vectors");
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(vectors as u16 - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        let at = self.capability(CAP_MSIX, &body);
        self.writable(at + 3, &[MSIX_ENABLE | MSIX_MASK]);
        let entry = Entry { words: [0, 0, 0, 1], pending: false };
        self.msix = Some(Msix { at, entries: vec![entry; vectors] });
    }

    /// Whether the guest has MSI enabled.
    #[must_use]
    pub fn msi_enabled(&self) -> bool {
        self.msi.is_some_and(|at| self.bytes[at + 2] & 1 != 0)
    }

    /// Whether the guest has MSI-X enabled.
    #[must_use]
    pub fn msix_enabled(&self) -> bool {
        self.msix.as_ref().is_some_and(|m| self.bytes[m.at + 3] & MSIX_ENABLE != 0)
    }

    /// Reads `size` bytes at `offset` of the MSI-X table, which is 16 bytes a vector.
    #[must_use]
    pub fn msix_read(&self, offset: u64, size: u8) -> u64 {
        let word = |n: u64| {
            let entry = self.msix.as_ref().and_then(|m| m.entries.get((n / 4) as usize));
            entry.map_or(0, |e| u64::from(e.words[(n & 3) as usize]))
        };
        match size {
            8 => word(offset / 4) | word(offset / 4 + 1) << 32,
            _ => word(offset / 4) >> (8 * (offset & 3)) & (u64::MAX >> (64 - 8 * u64::from(size))),
        }
    }

    /// Writes the MSI-X table: dwords and quadwords only, as the specification asks.
    pub fn msix_write(&mut self, offset: u64, size: u8, value: u64) {
        for (n, part) in [(0, value as u32), (1, (value >> 32) as u32)] {
            let word = offset / 4 + n;
            let entry = self.msix.as_mut().and_then(|m| m.entries.get_mut((word / 4) as usize));
            if let Some(e) = entry.filter(|_| size == 8 || size == 4 && n == 0) {
                e.words[(word & 3) as usize] = part;
            }
        }
        self.unmask();
    }

    /// The pending bits of vectors 64 × `word` and up.
    #[must_use]
    pub fn msix_pending(&self, word: u64) -> u64 {
        let entries = self.msix.iter().flat_map(|m| m.entries.iter());
        let bits = entries.skip((word as usize).saturating_mul(64)).take(64).enumerate();
        bits.fold(0, |bits, (n, e)| bits | u64::from(e.pending) << n)
    }

    /// Sends the message of MSI-X vector `vector`, or keeps it pending while it is masked.
    pub fn raise_msix(&mut self, vector: usize) {
        let entry = self.msix.as_mut().and_then(|m| m.entries.get_mut(vector));
        if let Some(e) = entry {
            e.pending = true;
        }
        self.unmask();
    }

    /// Sends the message of MSI.
    pub fn raise_msi(&mut self) {
        if let Some(at) = self.msi.filter(|_| self.msi_enabled() && self.is_master()) {
            let address = u64::from(self.dword(at + 4)) | u64::from(self.dword(at + 8)) << 32;
            self.messages.push(Message { address, data: self.dword(at + 12) & 0xffff });
        }
    }

    /// Takes the messages that were sent.
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    /// Sends what is pending and masked no more.
    fn unmask(&mut self) {
        let master = self.is_master();
        let Some(m) = &mut self.msix else { return };
        let control = self.bytes[m.at + 3];
        if !master || control & (MSIX_ENABLE | MSIX_MASK) != MSIX_ENABLE {
            return;
        }
        for e in m.entries.iter_mut().filter(|e| e.pending && e.words[3] & 1 == 0) {
            e.pending = false;
            let address = u64::from(e.words[0] & !3) | u64::from(e.words[1]) << 32;
            self.messages.push(Message { address, data: e.words[2] });
        }
    }

    /// RST#.
    pub fn reset(&mut self) {
        *self.bytes = *self.initial;
        self.messages.clear();
        for e in self.msix.iter_mut().flat_map(|m| &mut m.entries) {
            *e = Entry { words: [0, 0, 0, 1], pending: false };
        }
    }
}

impl PciFunction for PciConfig {
    fn config_read(&mut self, offset: u8, size: u8) -> u32 {
        let low = self.dword(usize::from(offset));
        low & (u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4))))
    }

    fn config_write(&mut self, offset: u8, size: u8, value: u32) {
        for (n, byte) in value.to_le_bytes().into_iter().take(usize::from(size)).enumerate() {
            let at = usize::from(offset) + n & 0xff;
            let writable = self.writable[at];
            self.bytes[at] = self.bytes[at] & !writable | byte & writable;
            self.bytes[at] &= !(byte & self.cleared[at]);
        }
        self.unmask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const ID: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        class: 0x01_0000,
        revision: 1,
        subsystem: (0x1af4, 0x1100),
    };

    #[test]
    fn the_header_tells_what_it_is() {
        let mut c = PciConfig::new(ID, 1);
        assert_eq!(c.config_read(0, 4), 0x1042_1af4);
        assert_eq!(c.config_read(8, 4), 0x0100_0001);
        assert_eq!(c.config_read(0x2c, 4), 0x1100_1af4);
        assert_eq!((c.config_read(0x3d, 1), c.config_read(6, 2)), (1, 0));
        c.config_write(0, 4, 0);
        assert_eq!(c.config_read(0, 4), 0x1042_1af4, "read only");
    }

    #[test]
    fn registers_are_sized_placed_and_decode_when_they_are_enabled() {
        let mut c = PciConfig::new(ID, 0);
        c.bar(0, Bar::Io, 64);
        c.bar(1, Bar::Memory32, 4096);
        c.bar(2, Bar::Memory64, 1 << 14);
        c.bar(ROM_BAR, Bar::Rom, 1 << 16);
        let sizes = [
            (0x10, 0xffff_ffc1),
            (0x14, 0xffff_f000),
            (0x18, 0xffff_c00c),
            (0x1c, u32::MAX),
            (0x30, 0xffff_0001),
            (0x20, 0),
        ];
        for (at, size) in sizes {
            c.config_write(at, 4, u32::MAX);
            assert_eq!(c.config_read(at, 4), size, "{at:#x}");
        }
        c.config_write(4, 2, 3);
        assert!((0..=6).all(|n| c.range(n).is_none()), "all ones are no place");
        for (at, base) in
            [(0x10, 0xc000), (0x14, 0xfebf_0000), (0x18, 0), (0x1c, 8), (0x30, 0xfea0_0001)]
        {
            c.config_write(at, 4, base);
        }
        let at = |io, base, len| Some(Range { io, base, len });
        assert_eq!(c.range(0), at(true, 0xc000, 64));
        assert_eq!(c.range(1), at(false, 0xfebf_0000, 4096));
        assert_eq!(c.range(2), at(false, 8 << 32, 1 << 14));
        assert_eq!((c.range(3), c.range(9)), (None, None));
        assert_eq!(c.range(ROM_BAR), at(false, 0xfea0_0000, 1 << 16));
        c.config_write(4, 2, 1);
        assert_eq!((c.range(0).is_some(), c.range(1)), (true, None));
        c.reset();
        assert_eq!((c.config_read(0x10, 4), c.range(0)), (1, None));
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut c = PciConfig::new(ID, 1);
        c.add_msi();
        c.add_msix(4, 3, 0, 0x800);
        let first = c.config_read(0x34, 1) as u8;
        assert_eq!((c.config_read(6, 1) & 0x10, c.config_read(first, 1)), (0x10, 5));
        let second = c.config_read(first + 1, 1) as u8;
        assert_eq!((c.config_read(second, 1), c.config_read(second + 1, 1)), (0x11, 0));
        assert_eq!((c.config_read(second + 2, 2), c.config_read(second + 8, 4)), (2, 0x804));
    }

    #[test]
    fn masked_messages_wait() {
        let mut c = PciConfig::new(ID, 1);
        c.add_msix(0, 2, 0, 0x800);
        c.config_write(4, 2, 4);
        c.config_write(0x43, 1, 0x80);
        c.msix_write(16, 8, 0xfee0_1000);
        c.msix_write(24, 4, 0x41);
        c.raise_msix(1);
        assert_eq!((c.take_messages(), c.msix_pending(0)), (vec![], 2));
        c.msix_write(28, 4, 0);
        let message = Message { address: 0xfee0_1000, data: 0x41 };
        assert_eq!((c.take_messages(), c.msix_pending(0)), (vec![message], 0));
        // The function's mask holds all back.
        c.config_write(0x43, 1, 0xc0);
        c.raise_msix(1);
        assert_eq!(c.take_messages(), []);
        c.config_write(0x43, 1, 0x80);
        assert_eq!(c.take_messages(), [message]);
        c.raise_msix(9);
        assert_eq!(
            (c.take_messages(), c.msix_read(16, 8), c.msix_read(24, 2)),
            (vec![], 0xfee0_1000, 0x41)
        );
        assert!(!c.intx_enabled());
    }

    #[test]
    fn msi_sends_its_message() {
        let mut c = PciConfig::new(ID, 1);
        c.add_msi();
        c.raise_msi();
        c.config_write(0x44, 4, 0xfee0_0000);
        c.config_write(0x4c, 2, 0x51);
        c.config_write(0x42, 1, 1);
        c.raise_msi();
        assert_eq!(c.take_messages(), [], "it is no master");
        c.config_write(4, 2, 4);
        c.raise_msi();
        assert_eq!(c.take_messages(), [Message { address: 0xfee0_0000, data: 0x51 }]);
    }

    #[test]
    fn random_accesses() {
        let (mut c, mut rng) = (PciConfig::new(ID, 1), Rng(7));
        c.bar(0, Bar::Memory64, 1 << 13);
        c.bar(5, Bar::Io, 8);
        c.add_msi();
        c.add_msix(0, 65, 0, 0x1000);
        for _ in 0..100_000 {
            let (offset, size) = (rng.next() as u8, [1, 2, 4][rng.below(3) as usize]);
            match rng.below(5) {
                0 => c.config_write(offset & !(size - 1), size, rng.next() as u32),
                1 => c.msix_write(rng.below(1100), size, rng.next()),
                2 => c.raise_msix(rng.below(70) as usize),
                3 => drop((c.config_read(offset, size), c.msix_read(rng.below(2000), 8))),
                _ => c.raise_msi(),
            }
            c.take_messages();
            assert!((0..8).filter_map(|n| c.range(n)).all(|r| r.len > 0));
        }
        assert_eq!(c.config_read(0, 4), 0x1042_1af4);
    }
}
