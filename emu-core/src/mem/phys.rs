//! The guest-physical address space: RAM and ROM regions over [`GuestRam`], everything else is
//! the platform's. Also the map of code: which 64-byte granules of RAM hold translated
//! instructions, so that stores, DMA and other CPUs can tell self-modification from data that
//! only lives beside code.
//!
//! The platform may lay the regions out anew while the guest runs ([`Memory::remap`]: shadowed ROM,
//! a frame buffer that moves). Who looks addresses up holds a list of its own, which costs no lock;
//! the CPU takes the new one before its next instruction after the access that asked for it.

use super::GuestRam;
use crate::platform::Platform;
use crate::width::Width;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Bytes per granule of the code map.
pub const GRANULE: u64 = 64;

/// A run of guest-physical addresses backed by [`GuestRam`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First guest-physical address; page-aligned.
    pub base: u64,
    /// Length in bytes; whole pages.
    pub len: u64,
    /// Offset of its first byte in [`GuestRam`].
    pub offset: u64,
    /// Where guest writes go.
    pub writes: Writes,
}

/// Where writes to a [`Region`] go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Into it: RAM.
    Ram,
    /// Nowhere: ROM.
    Nowhere,
    /// To the platform, though reads and fetches come from the region: flash memory, a ROM with
    /// RAM beneath that is being filled.
    Platform,
}

/// Which granules of RAM hold translated code, one bit each, one word a page.
#[derive(Debug)]
pub struct CodeMap {
    pages: Box<[AtomicU64]>,
    /// Which pages stores must look at first, one bit each: all that have code, and some that had.
    watched: Box<[AtomicU64]>,
    /// RAM offset and length of writes from outside (DMA, page-walk updates) that hit code, for
    /// the CPU to invalidate.
    dirty: Mutex<Vec<(u64, u64)>>,
    /// There is something in `dirty`, or the regions were laid out anew.
    any_dirty: AtomicBool,
    remapped: AtomicBool,
    /// The regions as they are laid out now. They are here, and not beside the map, because
    /// [`PhysMem`] is a part of the CPU's state, whose size host code is sensitive to.
    regions: Mutex<Arc<[Region]>>,
}

impl CodeMap {
    fn new(ram_len: u64, regions: Arc<[Region]>) -> CodeMap {
        CodeMap {
            pages: (0..ram_len / 4096).map(|_| AtomicU64::new(0)).collect(),
            watched: (0..ram_len.div_ceil(4096 * 64)).map(|_| AtomicU64::new(0)).collect(),
            dirty: Mutex::default(),
            any_dirty: AtomicBool::new(false),
            remapped: AtomicBool::new(false),
            regions: Mutex::new(regions),
        }
    }

    /// The granule bits of `len` bytes at RAM offset `off`, as far as they are in its page.
    pub fn mask(off: u64, len: u64) -> u64 {
        let first = (off & 4095) / GRANULE;
        let last = ((off & 4095) + len - 1).min(4095) / GRANULE;
        (u64::MAX << first) & (u64::MAX >> (63 - last))
    }

    /// The granule bits of the page that holds RAM offset `off`; 0 when it has no code.
    #[inline]
    pub fn page(&self, off: u64) -> u64 {
        self.pages.get((off >> 12) as usize).map_or(0, |p| p.load(Relaxed))
    }

    /// Whether any of `len` bytes (not crossing a page) at RAM offset `off` is in a code granule.
    #[inline]
    pub fn hit(&self, off: u64, len: u64) -> bool {
        self.page(off) & Self::mask(off, len) != 0
    }

    /// Marks `len` bytes (not crossing a page) at RAM offset `off` as code. Returns true when
    /// the page is watched from now on, so that write rights must be taken from the TLBs.
    pub fn mark(&self, off: u64, len: u64) -> bool {
        let Some(p) = self.pages.get((off >> 12) as usize) else { return false };
        p.fetch_or(Self::mask(off, len), Relaxed);
        let (word, bit) = self.watch(off);
        word.fetch_or(bit, Relaxed) & bit == 0
    }

    fn watch(&self, off: u64) -> (&AtomicU64, u64) {
        (&self.watched[(off >> 18) as usize], 1 << (off >> 12 & 63))
    }

    /// Whether stores to the page at RAM offset `off` must look whether they hit code.
    #[inline]
    pub fn is_watched(&self, off: u64) -> bool {
        let word = self.watched.get((off >> 18) as usize);
        word.is_some_and(|w| w.load(Relaxed) >> (off >> 12 & 63) & 1 != 0)
    }

    /// The page at RAM offset `off`, which has no code, need not be watched any more.
    pub fn release(&self, off: u64) {
        if self.page(off) == 0 && (off >> 18) < self.watched.len() as u64 {
            let (word, bit) = self.watch(off);
            word.fetch_and(!bit, Relaxed);
        }
    }

    /// Sets the code granules of the page at RAM offset `off` anew.
    pub fn set_page(&self, off: u64, granules: u64) {
        if let Some(p) = self.pages.get((off >> 12) as usize) {
            p.store(granules, Relaxed);
        }
    }

    /// Forgets all code.
    pub fn clear(&self) {
        self.pages.iter().for_each(|p| p.store(0, Relaxed));
    }

    /// Notes a write from outside the CPU's own stores.
    fn note(&self, off: u64, len: u64) {
        if self.hit(off, len) {
            self.dirty.lock().unwrap().push((off, len));
            self.any_dirty.store(true, Relaxed);
        }
    }

    /// Takes the writes (RAM offset, length) from outside that hit code.
    ///
    /// # Panics
    /// When another thread panicked while it noted one.
    pub fn take_dirty(&self) -> Vec<(u64, u64)> {
        if self.any_dirty.swap(false, Relaxed) {
            std::mem::take(&mut self.dirty.lock().unwrap())
        } else {
            Vec::new()
        }
    }

    /// Whether [`take_dirty`](Self::take_dirty) would give anything, or the regions are others.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.any_dirty.load(Relaxed)
    }
}

/// The memory of one machine without its devices: what a device that masters the bus reads and
/// writes, and what the platform lays out. Cheap to clone; all clones are the same memory.
#[derive(Clone, Debug)]
pub struct Memory {
    ram: Arc<GuestRam>,
    code: Arc<CodeMap>,
}

impl Memory {
    /// Memory with `regions` over `ram`.
    ///
    /// # Panics
    /// When regions overlap, are not in pages or reach beyond `ram`: a wiring bug.
    pub fn new(ram: Arc<GuestRam>, regions: Vec<Region>) -> Memory {
        let code = Arc::new(CodeMap::new(ram.len(), checked(&ram, regions)));
        Memory { ram, code }
    }

    /// RAM at address 0 only: for tests and tools.
    ///
    /// # Errors
    /// What the host says when it cannot reserve that much.
    pub fn flat(len: u64) -> std::io::Result<Memory> {
        let region = Region { base: 0, len, offset: 0, writes: Writes::Ram };
        Ok(Memory::new(Arc::new(GuestRam::new(len)?), vec![region]))
    }

    /// All memory behind the regions.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// The regions, sorted by base.
    pub fn regions(&self) -> Arc<[Region]> {
        self.code.regions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lays the regions out anew. The CPU sees them from its next instruction on.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn remap(&self, regions: Vec<Region>) {
        let regions = checked(&self.ram, regions);
        *self.code.regions.lock().unwrap_or_else(PoisonError::into_inner) = regions;
        self.code.remapped.store(true, Relaxed);
        self.code.any_dirty.store(true, Relaxed);
    }

    /// Fills `buf` from guest-physical address `pa` on; what is no memory reads as ones. Devices
    /// do not reach devices.
    pub fn read(&self, pa: u64, buf: &mut [u8]) {
        let regions = self.regions();
        let mut at = pa;
        for chunk in page_chunks(pa, buf) {
            match find(&regions, at) {
                Some((off, _)) => self.ram.read_bytes(off, chunk),
                None => chunk.fill(0xff),
            }
            at = at.wrapping_add(chunk.len() as u64);
        }
    }

    /// Writes `buf` from guest-physical address `pa` on, to RAM only.
    pub fn write(&self, pa: u64, buf: &[u8]) {
        write_bytes(&self.regions(), &self.ram, &self.code, pa, buf);
    }

    /// Reads `N` bytes at guest-physical address `pa`.
    pub fn read_array<const N: usize>(&self, pa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(pa, &mut bytes);
        bytes
    }
}

/// A part of [`GuestRam`] that a device has for itself, such as video memory: offsets count from
/// its start, beyond its end reads give 0 and writes go nowhere.
#[derive(Clone, Debug)]
pub struct DeviceRam {
    ram: Arc<GuestRam>,
    code: Arc<CodeMap>,
    start: u64,
    len: u64,
}

impl DeviceRam {
    /// `len` bytes at RAM offset `start` of `memory`.
    ///
    /// # Panics
    /// When they reach beyond its end: a wiring bug.
    pub fn new(memory: &Memory, start: u64, len: u64) -> DeviceRam {
        assert!(start.checked_add(len).is_some_and(|end| end <= memory.ram.len()));
        DeviceRam { ram: memory.ram.clone(), code: memory.code.clone(), start, len }
    }

    /// Memory of its own, mapped nowhere: for tests.
    ///
    /// # Errors
    /// What the host says when it cannot reserve that much.
    pub fn alone(len: u64) -> std::io::Result<DeviceRam> {
        Ok(DeviceRam::new(&Memory::new(Arc::new(GuestRam::new(len)?), Vec::new()), 0, len))
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no device has none")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where it begins, as an offset in [`GuestRam`].
    pub fn start(&self) -> u64 {
        self.start
    }

    fn clip(&self, at: u64, len: usize) -> usize {
        self.len.saturating_sub(at).min(len as u64) as usize
    }

    /// Fills `buf` from `at` on.
    pub fn read(&self, at: u64, buf: &mut [u8]) {
        let (inside, beyond) = buf.split_at_mut(self.clip(at, buf.len()));
        self.ram.read_bytes(self.start.wrapping_add(at), inside);
        beyond.fill(0);
    }

    /// Writes `buf` at `at`.
    pub fn write(&self, at: u64, buf: &[u8]) {
        let inside = &buf[..self.clip(at, buf.len())];
        let mut off = self.start.wrapping_add(at);
        for chunk in inside.chunks(64) {
            // A chunk meets two granules at most, and two pages.
            self.code.note(off, chunk.len() as u64);
            self.code.note(off + chunk.len() as u64 - 1, 1);
            self.ram.write_bytes(off, chunk);
            off += chunk.len() as u64;
        }
    }

    /// The little-endian double word at `at`.
    pub fn read_u32(&self, at: u64) -> u32 {
        if self.clip(at, 4) < 4 { 0 } else { self.ram.read_u32(self.start.wrapping_add(at)) }
    }

    /// Writes the little-endian double word at `at`.
    pub fn write_u32(&self, at: u64, value: u32) {
        self.write(at, &value.to_le_bytes());
    }
}

/// Sorts regions and checks them.
fn checked(ram: &GuestRam, mut regions: Vec<Region>) -> Arc<[Region]> {
    regions.sort_by_key(|r| r.base);
    for r in &regions {
        assert!((r.base | r.len | r.offset) & 4095 == 0, "{r:x?} is not in pages");
        assert!(r.offset + r.len <= ram.len(), "{r:x?} is beyond RAM of {:#x}", ram.len());
    }
    for p in regions.windows(2) {
        assert!(p[0].base + p[0].len <= p[1].base, "{:x?} overlaps {:x?}", p[0], p[1]);
    }
    regions.into()
}

#[inline]
fn find(regions: &[Region], pa: u64) -> Option<(u64, Writes)> {
    let found = regions.iter().find(|r| pa.wrapping_sub(r.base) < r.len);
    found.map(|r| (pa - r.base + r.offset, r.writes))
}

fn write_bytes(regions: &[Region], ram: &GuestRam, code: &CodeMap, pa: u64, buf: &[u8]) {
    let mut at = pa;
    let mut rest = buf;
    while !rest.is_empty() {
        let n = rest.len().min(4096 - (at & 4095) as usize);
        let (chunk, tail) = rest.split_at(n);
        if let Some((off, Writes::Ram)) = find(regions, at) {
            code.note(off, n as u64);
            ram.write_bytes(off, chunk);
        }
        at = at.wrapping_add(n as u64);
        rest = tail;
    }
}

/// The physical address space of one machine; cheap to clone, all clones are the same memory.
#[derive(Clone)]
pub struct PhysMem {
    /// All memory behind the regions.
    pub ram: Arc<GuestRam>,
    /// Sorted by base, not overlapping.
    regions: Arc<[Region]>,
    /// Who answers everywhere else.
    pub platform: Arc<dyn Platform>,
    /// Where translated code lies.
    pub code: Arc<CodeMap>,
}

impl PhysMem {
    /// An address space of `regions` over `ram`, and `platform` elsewhere.
    ///
    /// # Panics
    /// When regions overlap, are not in pages or reach beyond `ram`: a wiring bug.
    pub fn new(ram: Arc<GuestRam>, regions: Vec<Region>, platform: Arc<dyn Platform>) -> Self {
        PhysMem::over(Memory::new(ram, regions), platform)
    }

    /// The address space of `memory`, and `platform` elsewhere.
    pub fn over(memory: Memory, platform: Arc<dyn Platform>) -> Self {
        let regions = memory.regions();
        let Memory { ram, code } = memory;
        PhysMem { ram, regions, platform, code }
    }

    /// Takes the regions as they are laid out now, if that has changed; true if so: whatever was
    /// kept by physical address must be forgotten.
    pub fn sync(&mut self) -> bool {
        let changed = self.code.remapped.swap(false, Relaxed);
        if changed {
            self.regions = self.memory().regions();
        }
        changed
    }

    /// The memory without the platform.
    pub fn memory(&self) -> Memory {
        Memory { ram: self.ram.clone(), code: self.code.clone() }
    }

    /// RAM at address 0 only, no devices: for tests and tools.
    ///
    /// # Errors
    /// What the host says when it cannot reserve that much.
    pub fn flat(len: u64) -> std::io::Result<PhysMem> {
        Ok(PhysMem::over(Memory::flat(len)?, Arc::new(crate::platform::NoDevices)))
    }

    /// The regions, sorted by base.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// RAM offset of `pa` and where writes to it go; `None` where devices (or nobody) answer.
    #[inline]
    pub fn lookup(&self, pa: u64) -> Option<(u64, Writes)> {
        find(&self.regions, pa)
    }

    /// Reads `w` at `pa`, which must not cross a page.
    pub fn read(&self, pa: u64, w: Width) -> u64 {
        match self.lookup(pa) {
            Some((off, _)) => self.ram.read(off, w),
            None => w.zext(self.platform.mmio_read(pa, w.bytes() as u8)),
        }
    }

    /// Writes `w` at `pa`, which must not cross a page. Code that it hits is noted for
    /// invalidation; a write to ROM is ignored.
    pub fn write(&self, pa: u64, w: Width, value: u64) {
        match self.lookup(pa) {
            Some((off, Writes::Ram)) => {
                self.code.note(off, w.bytes());
                self.ram.write(off, w, value);
            }
            Some((_, Writes::Nowhere)) => {}
            Some((_, Writes::Platform)) | None => {
                self.platform.mmio_write(pa, w.bytes() as u8, w.zext(value));
            }
        }
    }

    /// Fills `buf` from `pa` on, page by page; devices are read byte by byte.
    pub fn read_bytes(&self, pa: u64, buf: &mut [u8]) {
        let mut at = pa;
        for chunk in page_chunks(pa, buf) {
            match self.lookup(at) {
                Some((off, _)) => self.ram.read_bytes(off, chunk),
                None => chunk.iter_mut().zip(at..).for_each(|(b, a)| {
                    *b = self.platform.mmio_read(a, 1) as u8;
                }),
            }
            at = at.wrapping_add(chunk.len() as u64);
        }
    }

    /// Writes `buf` from `pa` on (DMA, loaders): RAM only; ROM, devices and holes ignore it.
    pub fn write_bytes(&self, pa: u64, buf: &[u8]) {
        write_bytes(&self.regions, &self.ram, &self.code, pa, buf);
    }
}

/// Splits `buf`, which lies at address `pa`, at page borders.
fn page_chunks(pa: u64, mut buf: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    let mut at = pa;
    std::iter::from_fn(move || {
        if buf.is_empty() {
            return None;
        }
        let n = buf.len().min(4096 - (at & 4095) as usize);
        let (chunk, tail) = std::mem::take(&mut buf).split_at_mut(n);
        buf = tail;
        at = at.wrapping_add(n as u64);
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_beside_code_are_told_from_writes_into_it() {
        let mem = PhysMem::flat(8192).unwrap();
        assert!(mem.code.mark(4096 + 100, 10));
        assert!(!mem.code.mark(4096 + 200, 10));
        assert!(mem.code.is_watched(4096) && !mem.code.is_watched(0));
        mem.write(4096 + 300, Width::W64, 1);
        assert!(!mem.code.is_dirty());
        mem.write(4096 + 64, Width::W8, 1);
        assert_eq!(mem.code.take_dirty(), [(4096 + 64, 1)]);
        mem.write_bytes(0, &[0; 8192]);
        assert!(mem.code.is_dirty());
        mem.code.release(4096);
        assert!(mem.code.is_watched(4096), "it has code");
        mem.code.set_page(4096, 0);
        assert!(!mem.code.mark(4096, 1), "still watched");
        mem.code.set_page(4096, 0);
        mem.code.release(4096);
        assert!(!mem.code.is_watched(4096) && mem.code.mark(4096, 1));
    }

    #[test]
    fn rom_ignores_writes_and_holes_read_ones() {
        let ram = Arc::new(GuestRam::new(8192).unwrap());
        ram.write_u32(4096, 0x1234);
        let r = vec![
            Region { base: 0, len: 4096, offset: 0, writes: Writes::Ram },
            Region { base: 0xf_f000, len: 4096, offset: 4096, writes: Writes::Nowhere },
        ];
        let mem = PhysMem::new(ram, r, Arc::new(crate::platform::NoDevices));
        mem.write(0xf_f000, Width::W32, 9);
        assert_eq!(mem.read(0xf_f000, Width::W32), 0x1234);
        assert_eq!(mem.read(0x5000, Width::W16), 0xffff);
        let mut buf = [0; 4100];
        mem.read_bytes(0, &mut buf);
        assert_eq!((buf[4095], buf[4096]), (0, 0xff));
    }
}
