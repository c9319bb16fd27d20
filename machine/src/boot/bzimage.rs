//! Linux `bzImage` files, by "The Linux/x86 Boot Protocol" (kernel documentation,
//! `arch/x86/boot`).
//!
//! The file is a real-mode part of 512-byte sectors, which holds the setup header, followed by
//! the protected-mode part, which unpacks the kernel. We skip the real-mode part: it would only
//! ask the BIOS for what we write into `boot_params` ourselves. The protected-mode part goes to
//! the address that the kernel prefers, where it need not move, and is entered at its 64-bit
//! entry point (or its 32-bit one, if that is all it has).

use super::e820::{self, ONE_MIB};
use super::params::{self, Params};
use super::{Cause, Entry, Job, Mode, low};
use emu_core::cpu::Reg;

/// `HdrS`.
const MAGIC: &[u8] = b"HdrS";
/// Protocol version that has `cmdline_size`, the youngest field that we cannot do without.
const OLDEST: u16 = 0x206;
/// `loadflags`: the protected-mode part is for 1 MiB and above.
const LOADED_HIGH: u64 = 1;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u64 = 1;
/// The 64-bit entry point's offset in the protected-mode part.
const ENTRY64: u64 = 0x200;

/// Fields of the setup header: offset in the file, size in bytes, and the protocol version that
/// brought them.
type Field = (usize, usize, u16);
const SETUP_SECTS: Field = (0x1f1, 1, 0);
const SYSSIZE: Field = (0x1f4, 4, 0x204);
const VERSION: Field = (0x206, 2, 0x200);
const LOADFLAGS: Field = (0x211, 1, 0x200);
const INITRD_ADDR_MAX: Field = (0x22c, 4, 0x203);
const KERNEL_ALIGNMENT: Field = (0x230, 4, 0x205);
const RELOCATABLE_KERNEL: Field = (0x234, 1, 0x205);
const XLOADFLAGS: Field = (0x236, 2, 0x20c);
const CMDLINE_SIZE: Field = (0x238, 4, 0x206);
const PAYLOAD_OFFSET: Field = (0x248, 4, 0x208);
const PAYLOAD_LENGTH: Field = (0x24c, 4, 0x208);
const PREF_ADDRESS: Field = (0x258, 8, 0x20a);
const INIT_SIZE: Field = (0x260, 4, 0x20a);

/// Whether `file` has the boot sector's mark and a setup header.
pub fn detect(file: &[u8]) -> bool {
    file.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && file.get(0x202..0x206) == Some(MAGIC)
}

/// A field's value; 0 if the file's protocol `version` does not have it yet.
fn field(file: &[u8], (offset, size, since): Field, version: u16) -> u64 {
    let mut v = [0; 8];
    match file.get(offset..offset + size) {
        Some(bytes) if since <= version => v[..size].copy_from_slice(bytes),
        _ => {}
    }
    u64::from_le_bytes(v)
}

/// A `bzImage` whose header holds together, and where it goes.
struct Image<'a> {
    /// The real-mode part.
    setup: &'a [u8],
    /// The protected-mode part.
    code: &'a [u8],
    /// Where `code` goes.
    load: u64,
    /// End of the memory that the kernel uses before it knows the memory map.
    end: u64,
    /// First address that an initrd must not reach.
    initrd_limit: u64,
    /// Longest command line without its NUL.
    cmdline_size: u64,
    /// Whether there is a 64-bit entry point.
    long: bool,
}

impl Image<'_> {
    fn parse(file: &[u8]) -> Result<Image<'_>, Cause> {
        let version = field(file, VERSION, u16::MAX) as u16;
        let get = |f| field(file, f, version);
        let bad = |field, value| Cause::Header { field, value };
        let cut = |need| Cause::Truncated { have: file.len() as u64, need };

        // 0 stands for 4, from before the field existed.
        let sectors = match get(SETUP_SECTS) {
            0 => 4,
            n => n,
        };
        let setup_len = (sectors + 1) * 512;
        let Some((setup, rest)) = file.split_at_checked(setup_len as usize) else {
            return Err(cut(setup_len));
        };
        if version < OLDEST {
            return Err(Cause::OldProtocol(version));
        }
        if get(LOADFLAGS) & LOADED_HIGH == 0 {
            return Err(Cause::ZImage);
        }
        let size = get(SYSSIZE) * 16;
        let long = get(XLOADFLAGS) & XLF_KERNEL_64 != 0;
        if size == 0 || long && size <= ENTRY64 || get(PAYLOAD_OFFSET) + get(PAYLOAD_LENGTH) > size
        {
            return Err(bad("syssize", get(SYSSIZE)));
        }
        // The field counts units of 16 bytes, of which the last need not be full.
        let last = size.saturating_sub(15)..=size;
        let len = if last.contains(&(rest.len() as u64)) { rest.len() } else { size as usize };
        let code = rest.get(..len).ok_or_else(|| cut(setup_len + size))?;

        // Where the kernel wants to run. One that cannot relocate is loaded at 1 MiB and moves
        // itself; before protocol 2.10 it does not say how much memory it needs, and four times
        // its packed size is more than any kernel of that time takes.
        let pref = get(PREF_ADDRESS).max(ONE_MIB);
        let init_size = if version < INIT_SIZE.2 { size * 4 } else { get(INIT_SIZE) };
        let (load, run) = if get(RELOCATABLE_KERNEL) != 0 {
            let align = get(KERNEL_ALIGNMENT);
            if !align.is_power_of_two() {
                return Err(bad("kernel_alignment", align));
            }
            let at = pref.checked_next_multiple_of(align);
            let at = at.ok_or_else(|| bad("pref_address", pref))?;
            (at, at)
        } else {
            (ONE_MIB, pref)
        };
        if run > e820::LOW_MAX || load > e820::LOW_MAX {
            return Err(bad("pref_address", pref));
        }
        let end = (load + size).max(run + init_size);
        if end > e820::LOW_MAX {
            return Err(bad("init_size", init_size));
        }
        let initrd_limit = get(INITRD_ADDR_MAX) + 1;
        Ok(Image { setup, code, load, end, initrd_limit, cmdline_size: get(CMDLINE_SIZE), long })
    }
}

/// Loads the `bzImage` of `job`.
pub(super) fn load(job: &Job) -> Result<Entry, Cause> {
    let image = Image::parse(job.kernel)?;
    job.check_cpu(image.long)?;
    if image.end > e820::split(job.ram_size).0 {
        return Err(Cause::Memory { need: image.end, ram: job.ram_size });
    }
    low::check_cmdline(job.cmdline, image.cmdline_size)?;
    let (initrd_at, initrd_size) = job.place_initrd(image.end, image.initrd_limit)?;

    let p = Params {
        code32_start: image.load as u32,
        ramdisk: (initrd_at as u32, initrd_size as u32),
        cmdline: low::CMDLINE as u32,
        rsdp: job.rsdp,
        text_mode: job.opts.text_mode,
    };
    let page = params::zero_page(image.setup, &p, &e820::map(job.ram_size));
    job.mem.write_bytes(low::BOOT_PARAMS, &page[..]);
    job.mem.write_bytes(image.load, image.code);
    job.mem.write_bytes(initrd_at, job.initrd.unwrap_or(&[]));
    low::write_cmdline(job.mem, job.cmdline);

    let (mode, rip) = if image.long && !job.opts.entry32 {
        (Mode::Long64, image.load + ENTRY64)
    } else {
        (Mode::Protected32, image.load)
    };
    Ok(Entry::new(job.mem, mode, rip, vec![(Reg::RSI, low::BOOT_PARAMS)]))
}

#[cfg(test)]
mod tests {
    use super::super::tests::try_load;
    use super::super::{Options, load};
    use super::*;
    use emu_core::mem::PhysMem;
    use emu_core::width::Width::*;

    const RAM: u64 = 64 << 20;

    /// A small kernel: protocol 2.15, one setup sector, 0x230 bytes of code, relocatable.
    fn image() -> Vec<u8> {
        let mut f = vec![0; 1024];
        f.extend((0..0x230).map(|i| i as u8));
        f[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]);
        f[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        f[0x202..0x206].copy_from_slice(MAGIC);
        for (at, v) in [
            (SETUP_SECTS, 1),
            (SYSSIZE, 0x23),
            (VERSION, 0x20f),
            (LOADFLAGS, 1),
            (INITRD_ADDR_MAX, 0x7fff_ffff),
            (KERNEL_ALIGNMENT, 0x20_0000),
            (RELOCATABLE_KERNEL, 1),
            (XLOADFLAGS, 1),
            (CMDLINE_SIZE, 2047),
            (PAYLOAD_OFFSET, 0x210),
            (PAYLOAD_LENGTH, 0x20),
            (PREF_ADDRESS, 0x100_0000),
            (INIT_SIZE, 0x100_0000),
        ] {
            set(&mut f, at, v);
        }
        f
    }

    fn set(file: &mut [u8], (at, size, _): Field, v: u64) {
        file[at..at + size].copy_from_slice(&v.to_le_bytes()[..size]);
    }

    fn with(fields: &[(Field, u64)]) -> Vec<u8> {
        let mut f = image();
        for &(at, v) in fields {
            set(&mut f, at, v);
        }
        f
    }

    #[test]
    fn a_kernel_is_loaded_where_it_prefers_with_its_initrd_on_top() {
        let mem = PhysMem::flat(RAM).unwrap();
        let initrd = vec![0x5a; 5000];
        let e = load(&mem, RAM, &image(), Some(&initrd), "a b", 0xe_0000, Options::default());
        let e = e.unwrap();
        assert_eq!((e.mode, e.rip), (Mode::Long64, 0x100_0200));
        assert_eq!((e.cr0, e.cr4, e.efer), (0x8000_0011, 0x20, 0x500));
        assert_eq!((e.cs.selector, e.data.selector, e.cs.long()), (0x10, 0x18, true));
        assert_eq!(mem.read(0x100_0200, W32), 0x0302_0100);
        let zero_page = e.regs[0].1;
        assert_eq!(e.regs, [(Reg::RSI, zero_page)]);
        let at = mem.read(zero_page + 0x218, W32);
        assert_eq!((at, mem.read(zero_page + 0x21c, W32)), (RAM - 0x2000, 5000));
        assert_eq!(
            (mem.read(at, W8), mem.read(at + 4999, W8), mem.read(at + 5000, W8)),
            (0x5a, 0x5a, 0)
        );
        let cmdline = mem.read(zero_page + 0x228, W32);
        assert_eq!(mem.read(cmdline, W32), u64::from(u32::from_le_bytes(*b"a b\0")));
        assert_eq!(mem.read(zero_page + 0x070, W64), 0xe_0000);
        assert_eq!(mem.read(zero_page + 0x202, W32), u64::from(u32::from_le_bytes(*b"HdrS")));
    }

    #[test]
    fn the_32_bit_entry_is_used_when_asked_for_or_all_there_is() {
        let mem = PhysMem::flat(RAM).unwrap();
        let opts = Options { entry32: true, ..Options::default() };
        let asked = load(&mem, RAM, &image(), None, "", 0, opts).unwrap();
        let only = try_load(RAM, &with(&[(XLOADFLAGS, 0)]), None).unwrap();
        let old = try_load(RAM, &with(&[(VERSION, 0x20b)]), None).unwrap();
        for e in [asked, only, old] {
            assert_eq!((e.mode, e.rip), (Mode::Protected32, 0x100_0000));
            assert_eq!((e.cr0, e.cr3, e.cr4, e.efer), (0x11, 0, 0, 0));
            assert!(e.cs.big() && !e.cs.long());
        }
    }

    #[test]
    fn a_64_bit_kernel_needs_a_64_bit_cpu() {
        let mem = PhysMem::flat(RAM).unwrap();
        for entry32 in [false, true] {
            let no_long_mode = Some("pentium3");
            let opts = Options { name: "k", entry32, no_long_mode, ..Options::default() };
            let e = load(&mem, RAM, &image(), None, "", 0, opts).unwrap_err();
            assert_eq!(
                e.to_string(),
                "cannot boot k: it is a 64-bit kernel, and the CPU model pentium3 has no 64-bit \
                 mode (lm); give another --cpu, or a 32-bit kernel"
            );
            assert!(load(&mem, RAM, &with(&[(XLOADFLAGS, 0)]), None, "", 0, opts).is_ok());
        }
    }

    #[test]
    fn a_fixed_or_old_kernel_goes_to_one_mib_or_its_next_step() {
        let fixed = with(&[(RELOCATABLE_KERNEL, 0), (KERNEL_ALIGNMENT, 0)]);
        assert_eq!(try_load(RAM, &fixed, None).unwrap().rip, ONE_MIB + ENTRY64);
        // Protocol 2.06 has no preferred address, but this one can relocate, in steps of 2 MiB.
        let old = try_load(RAM, &with(&[(VERSION, 0x206)]), None).unwrap();
        assert_eq!(old.rip, 0x20_0000);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mem = PhysMem::flat(RAM).unwrap();
        let whole = image();
        for n in 0..whole.len() - 15 {
            let r = load(&mem, RAM, &whole[..n], None, "", 0, Options::default());
            let cause = r.expect_err("a part of a kernel").cause;
            match n {
                0 => assert_eq!(cause, Cause::Empty),
                1..0x206 => assert_eq!(cause, Cause::NotAKernel),
                0x206..1024 => {
                    assert!(matches!(cause, Cause::Truncated { have, .. } if have == n as u64));
                }
                _ => {
                    assert_eq!(
                        cause,
                        Cause::Truncated { have: n as u64, need: whole.len() as u64 }
                    );
                }
            }
        }
        assert!(load(&mem, RAM, &whole, None, "", 0, Options::default()).is_ok());
    }

    #[test]
    fn absurd_headers_are_refused() {
        let have = image().len() as u64;
        let bad = |field, value| Cause::Header { field, value };
        let fixed = (RELOCATABLE_KERNEL, 0);
        for (fields, cause) in [
            (&[(SETUP_SECTS, 255)][..], Cause::Truncated { have, need: 256 * 512 }),
            (&[(VERSION, 0x205)], Cause::OldProtocol(0x205)),
            (&[(LOADFLAGS, 0)], Cause::ZImage),
            (&[(SYSSIZE, 0x24)], Cause::Truncated { have, need: 1024 + 0x240 }),
            (&[(SYSSIZE, 0xffff_ffff)], Cause::Truncated { have, need: 1024 + 0xf_ffff_fff0 }),
            (&[(SYSSIZE, 0x22)], bad("syssize", 0x22)),
            (&[(SYSSIZE, 0)], bad("syssize", 0)),
            (&[(SYSSIZE, 0x20), (PAYLOAD_OFFSET, 0)], bad("syssize", 0x20)),
            (&[(PAYLOAD_OFFSET, 0xffff_ffff), (PAYLOAD_LENGTH, 0xffff_ffff)], bad("syssize", 0x23)),
            (&[(KERNEL_ALIGNMENT, 0)], bad("kernel_alignment", 0)),
            (&[(KERNEL_ALIGNMENT, 0x30_0000)], bad("kernel_alignment", 0x30_0000)),
            (&[(PREF_ADDRESS, u64::MAX)], bad("pref_address", u64::MAX)),
            (&[(PREF_ADDRESS, 0xffff_ffff_ffe0_0000)], bad("pref_address", 0xffff_ffff_ffe0_0000)),
            (&[fixed, (PREF_ADDRESS, u64::MAX)], bad("pref_address", u64::MAX)),
            (&[(INIT_SIZE, 0xffff_ffff)], bad("init_size", 0xffff_ffff)),
            (&[(INIT_SIZE, 0x1000_0000)], Cause::Memory { need: 0x1100_0000, ram: RAM }),
            (&[(CMDLINE_SIZE, 4)], Cause::CommandLine { len: 5, max: 4 }),
        ] {
            assert_eq!(try_load(RAM, &with(fields), None), Err(cause));
        }
        // Four setup sectors of 512 bytes are meant by 0, so that the code starts later.
        let mut f = with(&[(SETUP_SECTS, 0), (SYSSIZE, 0x23)]);
        f.splice(1024..1024, [0xcc; 3 * 512]);
        assert!(try_load(RAM, &f, None).is_ok());
        f.truncate(f.len() - 16);
        assert!(matches!(try_load(RAM, &f, None), Err(Cause::Truncated { .. })));
    }

    #[test]
    fn an_initrd_must_fit_between_the_kernel_and_the_top() {
        let mib = |n: usize| vec![1; n << 20];
        assert!(try_load(RAM, &image(), Some(&mib(32))).is_ok());
        let big =
            Cause::Initrd { size: 33 << 20, above: 32 << 20, below: RAM, limit: 1 << 31, ram: RAM };
        assert_eq!(try_load(RAM, &image(), Some(&mib(33))), Err(big));
        let low = with(&[(INITRD_ADDR_MAX, 0x27f_ffff)]);
        let e = try_load(RAM, &low, Some(&mib(9))).unwrap_err();
        assert!(e.to_string().ends_with("use a smaller one"), "{e}");
        assert!(try_load(RAM, &low, Some(&mib(8))).is_ok());
        assert_eq!(try_load(RAM, &image(), Some(&[])), Err(Cause::EmptyInitrd));
        assert!(matches!(
            try_load(RAM, &with(&[(INITRD_ADDR_MAX, 0)]), Some(&[1])),
            Err(Cause::Initrd { .. })
        ));
    }

    #[test]
    fn a_refused_kernel_leaves_memory_alone() {
        let mem = PhysMem::flat(RAM).unwrap();
        let r = load(&mem, RAM, &image(), Some(&vec![1; 40 << 20]), "x", 0, Options::default());
        assert!(r.is_err());
        for at in [low::BOOT_PARAMS + 0x202, low::CMDLINE, 0x100_0200] {
            assert_eq!(mem.read(at, W64), 0);
        }
    }

    #[test]
    fn no_single_byte_of_the_header_can_make_it_panic() {
        let mem = PhysMem::flat(RAM).unwrap();
        for at in 0x1f0..0x270 {
            for v in [0, 1, 0x7f, 0x80, 0xff] {
                let mut f = image();
                f[at] = v;
                let _ = load(&mem, RAM, &f, Some(b"initrd"), "x", 0, Options::default());
            }
        }
    }
}
