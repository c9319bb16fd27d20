//! Programs of 32-bit code that are entered by PVH.

use machine::{Boot, Kernel};

/// Where such a program lies.
pub const BASE: u32 = 0x10_0000;

/// An ELF file with a PVH note whose only segment is `code`, at [`BASE`].
pub fn pvh(code: &[u8]) -> Boot {
    const DATA: usize = 52 + 2 * 32;
    let mut image = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    // From e_version: e_phoff is 52, e_ehsize 52, e_phentsize 32, e_phnum 2.
    let header = [1, BASE, 52, 0, 0, 52 | 32 << 16, 2, 0];
    let len = code.len() as u32;
    let load = [1, DATA as u32 + 20, BASE, BASE, len, len, 7, 1];
    let note = [4, DATA as u32, 0, 0, 20, 20, 4, 4];
    let data = [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), BASE];
    let words = header.iter().chain(&load).chain(&note).chain(&data);
    image.extend(words.flat_map(|w| w.to_le_bytes()));
    image.extend_from_slice(code);
    Boot::Kernel(Kernel { image, ..Kernel::default() })
}
