//! `boot_params`, the "zero page" through which a loader talks to Linux (Linux kernel
//! documentation, "Zero Page" and "The Linux/x86 Boot Protocol"). All of it is zero but what is
//! set here and the setup header, which is the kernel's own with the loader's fields filled in.

use super::e820;

/// Offsets into `boot_params`, with the kernel's names.
mod at {
    pub const SCREEN_INFO: usize = 0x000;
    pub const ACPI_RSDP_ADDR: usize = 0x070;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const HDR: usize = 0x1f1;
    pub const VID_MODE: usize = 0x1fa;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const CMD_LINE_PTR: usize = 0x228;
    /// End of the room for the setup header: `edd_mbr_sig_buffer` follows.
    pub const HDR_MAX: usize = 0x290;
    pub const E820_TABLE: usize = 0x2d0;
}

/// "Unknown loader".
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode`: leave the display as it is.
const VID_NORMAL: u16 = 0xffff;

/// What the loader decided.
pub struct Params {
    /// Where the protected-mode kernel is.
    pub code32_start: u32,
    /// Where the initial RAM disk is and how long; zeros without one.
    pub ramdisk: (u32, u32),
    /// Where the command line is.
    pub cmdline: u32,
    /// Where the RSDP is, 0 if the kernel should search.
    pub rsdp: u64,
    /// Whether a display card is in 80×25 text mode.
    pub text_mode: bool,
}

/// Makes the page from `setup`, the real-mode part of the kernel file, and the memory map.
pub fn zero_page(setup: &[u8], p: &Params, map: &[e820::Entry]) -> Box<[u8; 4096]> {
    let mut page = Box::new([0; 4096]);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);

    // The jump over the header gives its length: target = 0x202 + displacement.
    let end = 0x202 + usize::from(setup.get(0x201).copied().unwrap_or(0));
    if let Some(header) = setup.get(at::HDR..end.min(at::HDR_MAX)) {
        put(at::HDR, header);
    }
    put(at::VID_MODE, &VID_NORMAL.to_le_bytes());
    put(at::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    put(at::CODE32_START, &p.code32_start.to_le_bytes());
    put(at::RAMDISK_IMAGE, &p.ramdisk.0.to_le_bytes());
    put(at::RAMDISK_SIZE, &p.ramdisk.1.to_le_bytes());
    put(at::CMD_LINE_PTR, &p.cmdline.to_le_bytes());
    put(at::ACPI_RSDP_ADDR, &p.rsdp.to_le_bytes());
    if p.text_mode {
        // orig_video_mode, orig_video_cols, orig_video_lines, orig_video_isVGA, orig_video_points.
        for (i, v) in [(6, 3), (7, 80), (14, 25), (15, 1), (16, 16)] {
            put(at::SCREEN_INFO + i, &[v]);
        }
    }
    put(at::E820_ENTRIES, &[map.len() as u8]);
    for (i, e) in map.iter().enumerate() {
        let row = at::E820_TABLE + 20 * i;
        put(row, &e.base.to_le_bytes());
        put(row + 8, &e.len.to_le_bytes());
        put(row + 16, &(e.kind as u32).to_le_bytes());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_header_is_kept_and_its_neighbours_are_clear() {
        let p = Params {
            code32_start: 0x10_0000,
            ramdisk: (0x700_0000, 0x1234),
            cmdline: 0x2_0000,
            rsdp: 0xe_0000,
            text_mode: true,
        };
        // A header that claims more than its room is cut off.
        for (displacement, end) in [(0x6a, 0x26c), (0xff, 0x290)] {
            let mut setup = vec![0xcc; 1024];
            setup[0x201] = displacement;
            let page = zero_page(&setup, &p, &e820::map(64 << 20));
            assert_eq!((page[0x1f0], page[0x1f1], page[end - 1], page[end]), (0, 0xcc, 0xcc, 0));
            assert_eq!(page[0x210], 0xff);
            assert_eq!(page[0x070..0x078], 0xe_0000_u64.to_le_bytes());
            assert_eq!(page[0x218..0x220], [0, 0, 0, 7, 0x34, 0x12, 0, 0]);
            assert_eq!((page[7], page[14], page[0x1ef]), (80, 25, 0));
            let rows = usize::from(page[0x1e8]);
            assert_eq!(rows, 5);
            let last = 0x2d0 + 20 * (rows - 1);
            assert_eq!(page[last..last + 8], 0x10_0000_u64.to_le_bytes());
            assert_eq!(page[last + 8..last + 16], (63_u64 << 20).to_le_bytes());
            assert_eq!(page[last + 16..last + 20], [1, 0, 0, 0]);
        }
    }
}
