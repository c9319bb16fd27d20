//! Guest RAM: one private, lazily populated mapping of the host, in huge pages where the host has
//! them to give. A guest's accesses are spread over all of its RAM, and a miss of the host's own
//! TLB costs a walk, in a VM of two dimensions. (A memfd would let other processes map the RAM, but
//! by default hosts have small pages only for these.)
//!
//! Two rules make it sound: nobody ever holds a Rust reference into guest memory, and every
//! access is either a relaxed atomic of its own width (aligned) or is made from such accesses
//! (unaligned), or is an instruction of the host's. The guest may tear its own unaligned stores, as
//! on a CPU across cache lines.
//! This is the only module of the crate with unsafe code.
#![allow(unsafe_code)]

use crate::width::Width;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Guest RAM; offsets are bytes from its start (not guest-physical addresses: see
/// [`PhysMem`](super::PhysMem) for the holes).
#[derive(Debug)]
pub struct GuestRam {
    map: MmapRaw,
    /// Where in the mapping it begins.
    first: usize,
    len: u64,
}

/// What the mapping is aligned to: a huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

macro_rules! accessors {
    ($($read:ident $write:ident $t:ty, $atomic:ty;)*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($t), "`; 0 beyond the end.")]
        #[inline(always)]
        pub fn $read(&self, off: u64) -> $t {
            const N: u64 = size_of::<$t>() as u64;
            if off > self.len - N {
                return 0;
            }
            if off.is_multiple_of(N) {
                // SAFETY: off + N <= len, so the pointer is inside the mapping, which lives as
                // long as self; it is aligned (mapping is page-aligned, off is a multiple of N);
                // all accesses to the mapping are atomic.
                unsafe { <$atomic>::from_ptr(self.start().add(off as usize).cast()) }
                    .load(Relaxed)
                    .to_le()
            } else {
                self.read_unaligned::<N>(off) as $t
            }
        }

        #[doc = concat!("Writes a little-endian `", stringify!($t), "`; ignored beyond the end.")]
        #[inline(always)]
        pub fn $write(&self, off: u64, value: $t) {
            const N: u64 = size_of::<$t>() as u64;
            if off > self.len - N {
                return;
            }
            if off.is_multiple_of(N) {
                // SAFETY: as in the read above.
                unsafe { <$atomic>::from_ptr(self.start().add(off as usize).cast()) }
                    .store(value.to_le(), Relaxed);
            } else {
                self.write_unaligned::<N>(off, value as u64);
            }
        }
    )*};
}

impl GuestRam {
    /// Address of its first byte in this process, for host code.
    pub fn address(&self) -> u64 {
        self.start() as u64
    }

    #[inline(always)]
    fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.first)
    }

    /// RAM of `len` bytes (a multiple of 4096, at least one page), all zero, not yet populated.
    ///
    /// # Errors
    /// What the host says when it cannot reserve that much.
    ///
    /// # Panics
    /// When `len` is not in pages: a wiring bug.
    pub fn new(len: u64) -> std::io::Result<GuestRam> {
        assert!(len >= 4096 && len.is_multiple_of(4096), "RAM size {len:#x} is not in pages");
        let whole = (len as usize).checked_add(HUGE).ok_or(ErrorKind::OutOfMemory)?;
        let map = MmapRaw::from(MmapOptions::new().len(whole).no_reserve_swap().map_anon()?);
        // Not all hosts have huge pages: small ones do, too.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let first = map.as_ptr().align_offset(HUGE);
        Ok(GuestRam { map, first, len })
    }

    /// Size in bytes.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no RAM at all (never).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    accessors! {
        read_u8 write_u8 u8, AtomicU8;
        read_u16 write_u16 u16, AtomicU16;
        read_u32 write_u32 u32, AtomicU32;
        read_u64 write_u64 u64, AtomicU64;
    }

    /// Reads `w` bytes at `off`, zero-extended.
    #[inline(always)]
    pub fn read(&self, off: u64, w: Width) -> u64 {
        match w {
            Width::W8 => self.read_u8(off) as u64,
            Width::W16 => self.read_u16(off) as u64,
            Width::W32 => self.read_u32(off) as u64,
            Width::W64 => self.read_u64(off),
        }
    }

    /// Writes the low `w` bytes of `value` at `off`.
    #[inline(always)]
    pub fn write(&self, off: u64, w: Width, value: u64) {
        match w {
            Width::W8 => self.write_u8(off, value as u8),
            Width::W16 => self.write_u16(off, value as u16),
            Width::W32 => self.write_u32(off, value as u32),
            Width::W64 => self.write_u64(off, value),
        }
    }

    /// Two aligned words joined: cheaper than eight bytes, and never past the end, because the
    /// second word is only touched when the value reaches into it and `len` is a multiple of 8.
    #[inline(always)]
    fn read_unaligned<const N: u64>(&self, off: u64) -> u64 {
        let (base, shift) = (off & !7, (off & 7) * 8);
        let lo = self.word(base) >> shift;
        let v = if (off & 7) + N > 8 { lo | self.word(base + 8) << (64 - shift) } else { lo };
        v & (u64::MAX >> (64 - 8 * N))
    }

    /// The aligned word at `off`, which the caller has checked to be in range.
    #[inline(always)]
    fn word(&self, off: u64) -> u64 {
        debug_assert!(off & 7 == 0 && off + 8 <= self.len);
        // SAFETY: the callers give offsets of words that contain a byte below `len`, which is a
        // multiple of 8; aligned, atomic, and the mapping lives as long as self.
        unsafe { AtomicU64::from_ptr(self.start().add(off as usize).cast()) }.load(Relaxed).to_le()
    }

    #[inline(always)]
    fn write_unaligned<const N: u64>(&self, off: u64, value: u64) {
        for i in 0..N {
            // SAFETY: the caller has checked that off + N <= len; a byte is always aligned.
            unsafe { AtomicU8::from_ptr(self.start().add((off + i) as usize)) }
                .store((value >> (8 * i)) as u8, Relaxed);
        }
    }

    /// Fills `buf` from `off`; what lies beyond the end reads as zero.
    pub fn read_bytes(&self, off: u64, buf: &mut [u8]) {
        let mut off = off;
        let mut chunks = buf.chunks_exact_mut(8);
        for c in &mut chunks {
            c.copy_from_slice(&self.read_u64(off).to_le_bytes());
            off += 8;
        }
        for b in chunks.into_remainder() {
            *b = self.read_u8(off);
            off += 1;
        }
    }

    /// Writes `buf` at `off`; what lies beyond the end is dropped.
    pub fn write_bytes(&self, off: u64, buf: &[u8]) {
        let mut off = off;
        let head = (off.wrapping_neg() & 7).min(buf.len() as u64) as usize;
        let (head, rest) = buf.split_at(head);
        for &b in head {
            self.write_u8(off, b);
            off += 1;
        }
        let (words, tail) = rest.as_chunks::<8>();
        for w in words {
            self.write_u64(off, u64::from_le_bytes(*w));
            off += 8;
        }
        for &b in tail {
            self.write_u8(off, b);
            off += 1;
        }
    }

    /// The parts of it that have been touched, in whole pages; all else is zero. What the host
    /// cannot tell is taken as touched.
    pub fn touched(&self) -> impl Iterator<Item = Range<u64>> {
        // An entry of 64 bits for each page (Linux, Documentation/admin-guide/mm/pagemap.rst).
        const THERE: u64 = 0b11 << 62;
        let pages = File::open("/proc/self/pagemap").ok();
        let size = rustix::param::page_size() as u64;
        let (mut at, mut read, mut entries) = (0, 0..0, vec![0; 1 << 15]);
        let mut there = move |at: u64| {
            if !read.contains(&at) {
                let page = (self.address() + at) / size;
                let got = pages.as_ref().map(|f| f.read_at(&mut entries, 8 * page));
                let got = got.and_then(Result::ok).unwrap_or(0);
                read = at..at + got as u64 / 8 * size;
            }
            let (n, known) = ((at - read.start) / size, read.contains(&at));
            !known || u64::from_ne_bytes(entries.as_chunks().0[n as usize]) & THERE != 0
        };
        std::iter::from_fn(move || {
            while at < self.len && !there(at) {
                at += size;
            }
            let start = at;
            while at < self.len && there(at) {
                at += size;
            }
            (start < at).then(|| start..at.min(self.len))
        })
    }

    /// Whether the `n` bytes at `off` are the same in both, `off` and `n` multiples of 8.
    pub fn same(&self, other: &GuestRam, off: u64, n: u64) -> bool {
        (off..off + n).step_by(8).all(|at| self.read_u64(at) == other.read_u64(at))
    }

    /// Where `n` elements of width `w` from `off` on are, if they are all in RAM.
    fn elements(&self, off: u64, n: u64, w: Width) -> Option<*mut u8> {
        let end = off.checked_add(n.checked_mul(w.bytes())?)?;
        // The offset is at most the mapping's length.
        (end <= self.len).then(|| self.start().wrapping_add(off as usize))
    }

    /// Copies `n` elements of width `w` from `src` to `dst`, one by one, from the first to the
    /// last, or if `down` from the last to the first: where the ranges overlap it makes a
    /// difference.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub fn movs(&self, w: Width, down: bool, dst: u64, src: u64, n: u64) {
        let (Some(to), Some(from)) = (self.elements(dst, n, w), self.elements(src, n, w)) else {
            return;
        };
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let (bytes, gap) = (n * w.bytes(), dst.wrapping_sub(src));
            let apart = gap == 0 || gap >= bytes && (!down || gap.wrapping_neg() >= bytes);
            let (w, down, n) = if apart { (Width::W8, false, bytes) } else { (w, down, n) };
            // SAFETY: both ranges are in the mapping, which lives as long as self.
            unsafe { host::movs(w, down, to, from, n) }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        for i in (0..n).map(|i| w.bytes() * if down { n - 1 - i } else { i }) {
            self.write(dst + i, w, self.read(src + i, w));
        }
    }

    /// Stores the low `w` bytes of `v` into `n` elements from `dst` on.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub fn stos(&self, w: Width, dst: u64, n: u64, v: u64) {
        let Some(to) = self.elements(dst, n, w) else { return };
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: the range is in the mapping, which lives as long as self.
        unsafe {
            host::stos(w, to, n, v);
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        (0..n).for_each(|i| self.write(dst + i * w.bytes(), w, v));
    }

    /// Compares `n` elements of width `w` from `a` and `b` on, one after the other (if `down` from
    /// the last one), as long as they are equal, or not `equal`. Gives how many it has looked at.
    pub fn cmps(&self, w: Width, down: bool, equal: bool, a: u64, b: u64, n: u64) -> u64 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if !down && let (Some(a), Some(b)) = (self.elements(a, n, w), self.elements(b, n, w)) {
            // SAFETY: both ranges are in the mapping, which lives as long as self.
            return unsafe { host::cmps(w, equal, a, b, n) };
        }
        let at = |i: u64| w.bytes() * if down { n - 1 - i } else { i };
        let same = |i: &u64| self.read(a + at(*i), w) == self.read(b + at(*i), w);
        (0..n).find(|i| same(i) != equal).map_or(n, |i| i + 1)
    }

    /// The same for the low `w` bytes of `v` and the elements from `at` on.
    pub fn scas(&self, w: Width, down: bool, equal: bool, v: u64, at: u64, n: u64) -> u64 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if !down && let Some(at) = self.elements(at, n, w) {
            // SAFETY: the range is in the mapping, which lives as long as self.
            return unsafe { host::scas(w, equal, v, at, n) };
        }
        let place = |i: u64| at + w.bytes() * if down { n - 1 - i } else { i };
        let same = |i: &u64| self.read(place(*i), w) == w.zext(v);
        (0..n).find(|i| same(i) != equal).map_or(n, |i| i + 1)
    }
}

/// The host's own string instructions: what other threads do meanwhile is seen as on a CPU.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod host {
    use crate::width::Width;
    use core::arch::asm;

    /// An instruction for elements of width `$w`.
    macro_rules! each_width {
        ($w:expr, $before:literal, $op:literal, $after:literal, $($operands:tt)*) => {
            match $w {
                Width::W8 => asm!(concat!($before, $op, "b", $after), $($operands)*),
                Width::W16 => asm!(concat!($before, $op, "w", $after), $($operands)*),
                Width::W32 => asm!(concat!($before, $op, "d", $after), $($operands)*),
                Width::W64 => asm!(concat!($before, $op, "q", $after), $($operands)*),
            }
        };
    }

    /// # Safety
    /// `n` elements at `to` and `from` are guest RAM.
    pub unsafe fn movs(w: Width, down: bool, to: *mut u8, from: *const u8, n: u64) {
        if n == 0 {
            return;
        }
        let last = if down { (n - 1) * w.bytes() } else { 0 } as usize;
        // SAFETY: it touches these elements alone; asm may access what Rust has no reference to.
        // DF is clear again behind it.
        unsafe {
            if down {
                each_width!(w, "std; ", "rep movs", "; cld",
                    inout("rcx") n => _, inout("rdi") to.add(last) => _,
                    inout("rsi") from.add(last) => _, options(nostack));
            } else {
                each_width!(w, "", "rep movs", "",
                    inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
                    options(nostack, preserves_flags));
            }
        }
    }

    /// # Safety
    /// `n` elements at `to` are guest RAM.
    pub unsafe fn stos(w: Width, to: *mut u8, n: u64, v: u64) {
        // SAFETY: as above.
        unsafe {
            each_width!(w, "", "rep stos", "",
                inout("rcx") n => _, inout("rdi") to => _, in("rax") v,
                options(nostack, preserves_flags));
        }
    }

    /// # Safety
    /// As [`movs`].
    pub unsafe fn cmps(w: Width, equal: bool, a: *const u8, b: *const u8, n: u64) -> u64 {
        let mut left = n;
        // SAFETY: as above.
        unsafe {
            if equal {
                each_width!(w, "", "repe cmps", "",
                    inout("rcx") left, inout("rdi") b => _, inout("rsi") a => _,
                    options(nostack, readonly));
            } else {
                each_width!(w, "", "repne cmps", "",
                    inout("rcx") left, inout("rdi") b => _, inout("rsi") a => _,
                    options(nostack, readonly));
            }
        }
        n - left
    }

    /// # Safety
    /// As [`stos`].
    pub unsafe fn scas(w: Width, equal: bool, v: u64, at: *const u8, n: u64) -> u64 {
        let mut left = n;
        // SAFETY: as above.
        unsafe {
            if equal {
                each_width!(w, "", "repe scas", "",
                    inout("rcx") left, inout("rdi") at => _, in("rax") v,
                    options(nostack, readonly));
            } else {
                each_width!(w, "", "repne scas", "",
                    inout("rcx") left, inout("rdi") at => _, in("rax") v,
                    options(nostack, readonly));
            }
        }
        n - left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_reads_back() {
        let ram = GuestRam::new(4096).unwrap();
        for off in 0..32 {
            for w in Width::ALL {
                ram.write(off, w, 0x8877_6655_4433_2211);
                assert_eq!(ram.read(off, w), w.zext(0x8877_6655_4433_2211), "{off} {w:?}");
            }
        }
        ram.write_u64(4092, 1);
        assert_eq!(ram.read_u64(4092), 0, "an access across the end is dropped");
        ram.write_u64(4088, 7);
        assert_eq!(ram.read_u32(4090), 0);
        assert_eq!(ram.read_u64(u64::MAX - 3), 0);
    }

    /// Each string operation against its elements taken one by one: all widths, directions,
    /// overlaps and alignments.
    #[test]
    fn strings_are_done_element_by_element() {
        let (ram, plain) = (GuestRam::new(4096).unwrap(), GuestRam::new(4096).unwrap());
        let all = |ram: &GuestRam| {
            let mut all = [0; 1024];
            ram.read_bytes(0, &mut all);
            all
        };
        let start = |seed: u64| {
            for off in (0..1024).step_by(8) {
                let v = (off + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x0103_0001_0301_0201;
                ram.write_u64(off, v);
                plain.write_u64(off, v);
            }
        };
        for w in Width::ALL {
            let at = |i: u64| i * w.bytes();
            for n in [0, 1, 2, 7, 30] {
                for down in [false, true] {
                    let order = |i: u64| if down { n - 1 - i } else { i };
                    for gap in [-500, -200, -17, -8, -3, -2, -1, 0, 1, 2, 3, 4, 8, 9, 40, 256i64] {
                        start(n);
                        let (src, dst) = (503, 503u64.wrapping_add_signed(gap));
                        ram.movs(w, down, dst, src, n);
                        for i in (0..n).map(|i| at(order(i))) {
                            plain.write(dst + i, w, plain.read(src + i, w));
                        }
                        assert_eq!(all(&ram), all(&plain), "{w:?} {n} {down} {gap}");
                    }
                    for (equal, seed) in [(false, 1), (true, 1), (false, 5), (true, 5)] {
                        start(seed);
                        (0..n / 2).for_each(|i| ram.write(600 + at(i), w, ram.read(16 + at(i), w)));
                        let v = ram.read(16 + at(n / 2), w);
                        let same = |a: u64, b: u64| (a == b) == equal;
                        let looked = |f: &dyn Fn(u64) -> bool| {
                            (0..n).position(|i| !f(at(order(i)))).map_or(n, |i| i as u64 + 1)
                        };
                        let one = |i| same(ram.read(600 + i, w), ram.read(16 + i, w));
                        assert_eq!(ram.cmps(w, down, equal, 600, 16, n), looked(&one));
                        let one = |i| same(v, ram.read(16 + i, w));
                        assert_eq!(ram.scas(w, down, equal, !w.mask() | v, 16, n), looked(&one));
                    }
                }
                start(n);
                ram.stos(w, 301, n, 0x8877_6655_4433_2211);
                (0..n).for_each(|i| plain.write(301 + at(i), w, 0x8877_6655_4433_2211));
                assert_eq!(all(&ram), all(&plain), "{w:?} {n}");
            }
            ram.movs(w, false, 4090, 0, 8);
            ram.stos(w, u64::MAX - 3, 8, 1);
            assert_eq!(ram.cmps(w, false, true, 4090, 4090, 8), 8, "nothing is beyond the end");
        }
    }
}
