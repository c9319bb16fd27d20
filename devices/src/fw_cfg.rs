//! fw_cfg: how a virtual machine hands its firmware numbers and files.
//!
//! Items have 16-bit keys. The selector register chooses one and goes back to its start, the data
//! register gives it byte by byte; beyond its end are zeros. Keys below 20H are fixed; files have
//! keys from 20H on and are found by name in the directory, itself an item. The DMA interface
//! does the same by a descriptor in guest memory: select, then read or skip.
//!
//! Registers by offset from port 510H: 0 selector (16 bits), 1 data (8 bits), 4 and 8 the halves of
//! the descriptor's address, big-endian, of which the second starts the transfer.
//!
//! Invariant: items never change by what the guest does; all transfers are bounded by the item.
//!
//! Source: QEMU, "QEMU Firmware Configuration (fw_cfg) Device".

use emu_core::mem::Memory;

/// First port.
pub const PORT: u16 = 0x510;
/// Number of ports.
pub const PORTS: u16 = 12;

const KEY_SIGNATURE: u16 = 0x00;
const KEY_ID: u16 = 0x01;
const KEY_DIRECTORY: u16 = 0x19;
const KEY_FILES: u16 = 0x20;
/// The bits of a key that choose the item; the others chose writes, and items of an architecture.
const KEY_BITS: u16 = 0xbfff;

/// The traditional interface and DMA.
const ID: u32 = 3;
const SIGNATURE: &[u8] = b"QEMU";
const DMA_SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");

const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 2;
const DMA_SKIP: u32 = 4;
const DMA_SELECT: u32 = 8;
const DMA_WRITE: u32 = 16;

/// Bytes of a file's name, with its closing zero.
const NAME: usize = 56;
/// Bytes that are copied at a time.
const CHUNK: usize = 4096;

/// The items and the registers.
#[derive(Clone, Debug)]
pub struct FwCfg {
    items: Vec<(u16, Vec<u8>)>,
    files: Vec<(String, Vec<u8>)>,
    directory: Vec<u8>,
    key: u16,
    offset: usize,
    descriptor: u64,
}

impl Default for FwCfg {
    fn default() -> FwCfg {
        FwCfg::new()
    }
}

impl FwCfg {
    /// Only what the interface itself has.
    #[must_use]
    pub fn new() -> FwCfg {
        let items = vec![(KEY_SIGNATURE, SIGNATURE.to_vec()), (KEY_ID, ID.to_le_bytes().to_vec())];
        let mut f = FwCfg {
            items,
            files: Vec::new(),
            directory: Vec::new(),
            key: 0,
            offset: 0,
            descriptor: 0,
        };
        f.list();
        f
    }

    /// Adds the item of a fixed key.
    pub fn item(&mut self, key: u16, bytes: Vec<u8>) {
        self.items.retain(|(k, _)| *k != key);
        self.items.push((key, bytes));
    }

    /// Adds a file, or replaces it.
    ///
    /// # Panics
    /// When its name is too long: a bug.
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        assert!(name.len() < NAME, "the name {name} is too long");
        match self.files.iter_mut().find(|(n, _)| n == name) {
            Some(file) => file.1 = bytes,
            None => self.files.push((name.to_owned(), bytes)),
        }
        // The directory is sorted by name.
        self.files.sort_by(|a, b| a.0.cmp(&b.0));
        self.list();
    }

    fn list(&mut self) {
        let mut d = (self.files.len() as u32).to_be_bytes().to_vec();
        for ((name, bytes), key) in self.files.iter().zip(KEY_FILES..) {
            d.extend((bytes.len() as u32).to_be_bytes());
            d.extend(key.to_be_bytes());
            d.extend([0, 0]);
            let start = d.len();
            d.extend(name.as_bytes());
            d.resize(start + NAME, 0);
        }
        self.directory = d;
    }

    /// System reset.
    pub fn reset(&mut self) {
        (self.key, self.offset, self.descriptor) = (0, 0, 0);
    }

    /// What is left of the chosen item.
    fn rest(&self) -> &[u8] {
        let item = match self.key & KEY_BITS {
            KEY_DIRECTORY => &self.directory[..],
            key @ KEY_FILES..0x4000 => {
                self.files.get(usize::from(key - KEY_FILES)).map_or(&[][..], |f| &f.1)
            }
            key => self.items.iter().find(|i| i.0 == key).map_or(&[][..], |i| &i.1),
        };
        item.get(self.offset..).unwrap_or(&[])
    }

    fn select(&mut self, key: u16) {
        (self.key, self.offset) = (key, 0);
    }

    /// Reads `size` bytes at register `reg`.
    pub fn read(&mut self, reg: u16, size: u8) -> u32 {
        match (reg, size) {
            (1, 1) => {
                let byte = self.rest().first().copied().unwrap_or(0);
                self.offset = self.offset.saturating_add(1);
                byte.into()
            }
            (4, 4) => ((DMA_SIGNATURE >> 32) as u32).swap_bytes(),
            (8, 4) => (DMA_SIGNATURE as u32).swap_bytes(),
            _ => 0,
        }
    }

    /// Writes `size` bytes at register `reg`; a descriptor is worked off in `memory` at once.
    pub fn write(&mut self, memory: &Memory, reg: u16, size: u8, value: u32) {
        let value = if size == 4 { value.swap_bytes() } else { value };
        match (reg, size) {
            (0, 1 | 2) => self.select(value as u16),
            (4, 4) => self.descriptor = u64::from(value) << 32,
            (8, 4) => {
                let at = std::mem::take(&mut self.descriptor) | u64::from(value);
                self.transfer(memory, at);
            }
            _ => {}
        }
    }

    /// Does what the descriptor at `at` says: control, length, address.
    fn transfer(&mut self, memory: &Memory, at: u64) {
        let control = u32::from_be_bytes(memory.read_array(at));
        let len = u32::from_be_bytes(memory.read_array(at.wrapping_add(4))) as usize;
        let to = u64::from_be_bytes(memory.read_array(at.wrapping_add(8)));
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let mut status = 0;
        if control & DMA_READ != 0 {
            let rest = self.rest();
            let inside = &rest[..rest.len().min(len)];
            memory.write(to, inside);
            let mut done = inside.len();
            // Zeros beyond the item, as far as there is memory to write.
            let zeros = [0; CHUNK];
            let most = usize::try_from(memory.ram().len()).unwrap_or(usize::MAX);
            while done < len.min(most) {
                let n = CHUNK.min(len - done);
                memory.write(to.wrapping_add(done as u64), &zeros[..n]);
                done += n;
            }
            self.offset = self.offset.saturating_add(len);
        } else if control & DMA_WRITE != 0 {
            status = DMA_ERROR;
        } else if control & DMA_SKIP != 0 {
            self.offset = self.offset.saturating_add(len);
        }
        memory.write(at, &status.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn bytes(f: &mut FwCfg, n: usize) -> Vec<u8> {
        (0..n).map(|_| f.read(1, 1) as u8).collect()
    }

    fn device() -> (FwCfg, Memory) {
        let mut f = FwCfg::new();
        f.item(5, vec![1, 0]);
        f.file("etc/z", vec![9; 3]);
        f.file("etc/a", vec![1, 2, 3, 4]);
        (f, Memory::flat(1 << 16).unwrap())
    }

    #[test]
    fn firmware_finds_a_file_by_its_name() {
        let (mut f, memory) = device();
        f.write(&memory, 0, 2, 0);
        assert_eq!(bytes(&mut f, 6), b"QEMU\0\0");
        f.write(&memory, 0, 2, 5);
        assert_eq!(bytes(&mut f, 2), [1, 0]);
        f.write(&memory, 0, 2, 0x19);
        let d = bytes(&mut f, 4 + 2 * 64);
        assert_eq!(
            (&d[..12], &d[12..18]),
            (&[0, 0, 0, 2, 0, 0, 0, 4, 0, 0x20, 0, 0][..], &b"etc/a\0"[..])
        );
        assert_eq!((&d[68..76], &d[76..82]), (&[0, 0, 0, 3, 0, 0x21, 0, 0][..], &b"etc/z\0"[..]));
        f.write(&memory, 0, 2, 0x20);
        assert_eq!(bytes(&mut f, 5), [1, 2, 3, 4, 0]);
    }

    fn dma(f: &mut FwCfg, memory: &Memory, control: u32, len: u32, to: u64) -> u32 {
        memory.write(0x100, &control.to_be_bytes());
        memory.write(0x104, &len.to_be_bytes());
        memory.write(0x108, &to.to_be_bytes());
        f.write(memory, 4, 4, 0);
        f.write(memory, 8, 4, 0x100_u32.swap_bytes());
        u32::from_be_bytes(memory.read_array(0x100))
    }

    #[test]
    fn descriptors_select_skip_and_read() {
        let (mut f, memory) = device();
        assert_eq!([4, 8].map(|r| f.read(r, 4).to_le_bytes()), [*b"QEMU", *b" CFG"]);
        memory.write(0x2000, &[0xee; 8]);
        assert_eq!(dma(&mut f, &memory, 0x20 << 16 | DMA_SELECT | DMA_SKIP, 1, 0), 0);
        assert_eq!(dma(&mut f, &memory, DMA_READ, 5, 0x2000), 0);
        assert_eq!(memory.read_array(0x2000), [2, 3, 4, 0, 0, 0xee, 0xee, 0xee]);
        assert_eq!(dma(&mut f, &memory, 0x20 << 16 | DMA_SELECT | DMA_WRITE, 2, 0x2000), DMA_ERROR);
        assert_eq!(dma(&mut f, &memory, 0x77 << 16 | DMA_SELECT | DMA_READ, u32::MAX, 0xfffe), 0);
        assert_eq!(memory.read_array(0xfffe), [0, 0]);
    }

    #[test]
    fn random_accesses() {
        let ((mut f, memory), mut rng) = (device(), Rng(3));
        for _ in 0..2_000 {
            let (reg, size) = (rng.below(13) as u16, [1, 2, 4][rng.below(3) as usize]);
            memory.write(rng.below(1 << 16), &rng.next().to_le_bytes());
            memory.write(0x104, &[0; 2]);
            match rng.below(3) {
                0 => drop(f.read(reg, size)),
                1 => f.write(&memory, reg, size, rng.next() as u32),
                _ => f.write(&memory, 8, 4, 0x100_u32.swap_bytes()),
            }
        }
        f.reset();
        assert_eq!(bytes(&mut f, 4), b"QEMU");
    }
}
