//! Guest RAM: one shared, lazily populated mapping of the host (memfd, so that other processes
//! may map it later).
//!
//! Two rules make it sound: nobody ever holds a Rust reference into guest memory, and every
//! access is either a relaxed atomic of its own width (aligned) or is made from such accesses
//! (unaligned). The guest may tear its own unaligned stores, as on a CPU across cache lines.
//! This is the only module of the crate with unsafe code.
#![allow(unsafe_code)]

use crate::width::Width;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Guest RAM; offsets are bytes from its start (not guest-physical addresses: see
/// [`PhysMem`](super::PhysMem) for the holes).
#[derive(Debug)]
pub struct GuestRam {
    map: MmapRaw,
    file: File,
    len: u64,
}

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
                unsafe { <$atomic>::from_ptr(self.map.as_mut_ptr().add(off as usize).cast()) }
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
                unsafe { <$atomic>::from_ptr(self.map.as_mut_ptr().add(off as usize).cast()) }
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
        self.map.as_ptr() as u64
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
        let fd = rustix::fs::memfd_create("ring3-ram", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, len)?;
        let file = File::from(fd);
        let map = MmapOptions::new().len(len as usize).no_reserve_swap().map_raw(&file)?;
        Ok(GuestRam { map, file, len })
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
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(off as usize).cast()) }
            .load(Relaxed)
            .to_le()
    }

    #[inline(always)]
    fn write_unaligned<const N: u64>(&self, off: u64, value: u64) {
        for i in 0..N {
            // SAFETY: the caller has checked that off + N <= len; a byte is always aligned.
            unsafe { AtomicU8::from_ptr(self.map.as_mut_ptr().add((off + i) as usize)) }
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
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => self.len,
                Err(_) => at,
            };
            if start >= self.len {
                return None;
            }
            let end = seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.len);
            at = end.max(start + 4096);
            Some(start..at.min(self.len))
        })
    }

    /// Whether the `n` bytes at `off` are the same in both, `off` and `n` multiples of 8.
    pub fn same(&self, other: &GuestRam, off: u64, n: u64) -> bool {
        (off..off + n).step_by(8).all(|at| self.read_u64(at) == other.read_u64(at))
    }

    /// Stores `n` elements of width `w` with the value `v` from `dst` on.
    pub fn fill(&self, dst: u64, w: Width, v: u64, n: u64) {
        let word = match w {
            Width::W8 => (v & 0xff) * 0x0101_0101_0101_0101,
            Width::W16 => (v & 0xffff) * 0x0001_0001_0001_0001,
            Width::W32 => (v & 0xffff_ffff) * 0x0000_0001_0000_0001,
            Width::W64 => v,
        };
        let bytes = n * w.bytes();
        let mut i = 0;
        // Whole words only where elements keep their alignment within them.
        if dst & 7 == 0 {
            while i + 8 <= bytes {
                self.write_u64(dst + i, word);
                i += 8;
            }
        }
        while i < bytes {
            self.write(dst + i, w, v);
            i += w.bytes();
        }
    }

    /// Copies `n` bytes from `src` to `dst` as a forward byte-by-byte copy would: where the
    /// ranges overlap with `dst` after `src`, the pattern repeats (REP MOVSB with DF = 0).
    pub fn copy_forward(&self, dst: u64, src: u64, n: u64) {
        let in_range = |off: u64| off.checked_add(n).is_some_and(|end| end <= self.len);
        if !in_range(dst) || !in_range(src) {
            return;
        }
        let gap = dst.wrapping_sub(src);
        if gap >= 8 && (dst | src) & 7 == 0 {
            let words = n / 8;
            for i in 0..words {
                self.write_u64(dst + 8 * i, self.read_u64(src + 8 * i));
            }
            for i in words * 8..n {
                self.write_u8(dst + i, self.read_u8(src + i));
            }
        } else if gap >= 8 {
            let mut i = 0;
            while i + 8 <= n {
                self.write_u64(dst + i, self.read_u64(src + i));
                i += 8;
            }
            for i in i..n {
                self.write_u8(dst + i, self.read_u8(src + i));
            }
        } else {
            for i in 0..n {
                self.write_u8(dst + i, self.read_u8(src + i));
            }
        }
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

    #[test]
    fn overlapping_copy_repeats_the_pattern() {
        let ram = GuestRam::new(4096).unwrap();
        for gap in [1, 2, 7, 8, 9, 64] {
            let seed: Vec<u8> = (1..=gap as u8).collect();
            ram.write_bytes(100, &seed);
            ram.copy_forward(100 + gap, 100, 200);
            let mut out = [0; 200];
            ram.read_bytes(100 + gap, &mut out);
            for (i, b) in out.iter().enumerate() {
                assert_eq!(*b, seed[i % gap as usize]);
            }
        }
    }
}
