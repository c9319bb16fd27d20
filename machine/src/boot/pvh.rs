//! ELF kernels with a PVH entry point (Xen "x86/HVM direct boot ABI"): an uncompressed Linux
//! `vmlinux`, and small kernels that want the simplest protocol there is.
//!
//! The ELF note `XEN_ELFNOTE_PHYS32_ENTRY` gives the physical address to enter in 32-bit
//! protected mode without paging, EBX pointing to `hvm_start_info`. Loadable segments go to
//! their physical addresses.

use super::{Cause, Entry, Job, Mode, e820, low};
use emu_core::cpu::Reg;
use emu_core::mem::PhysMem;
use goblin::container::{Container, Ctx, Endian};
use goblin::elf::note::NoteDataIterator;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};
use goblin::elf::{Elf, Header, ProgramHeader, header};

/// The note's type; its name is "Xen".
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// `hvm_start_info.magic`.
const MAGIC: u32 = 0x336e_c578;
/// Where in its page `hvm_start_info` (56 bytes) has its lists of modules and memory.
const MODLIST: u64 = low::START_INFO + 0x40;
const MEMMAP: u64 = low::START_INFO + 0x80;

/// A checked part of a kernel.
#[derive(Debug)]
pub(super) struct Part<'a> {
    start: u64,
    pub(super) end: u64,
    /// The bytes at `start`; the rest up to `end` is zero.
    data: &'a [u8],
}

impl Part<'_> {
    pub(super) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    pub(super) fn write(&self, mem: &PhysMem) {
        let zeros = [0; 4096];
        mem.write_bytes(self.start, self.data);
        let mut at = self.start + self.data.len() as u64;
        while at < self.end {
            let n = (self.end - at).min(4096);
            mem.write_bytes(at, &zeros[..n as usize]);
            at += n;
        }
    }
}

fn damaged(why: &str) -> Cause {
    Cause::Elf(why.to_owned())
}

impl From<goblin::error::Error> for Cause {
    fn from(e: goblin::error::Error) -> Cause {
        damaged(&e.to_string())
    }
}

/// Reads the file header and the program headers of an ELF file for x86.
fn headers(file: &[u8]) -> Result<(Vec<ProgramHeader>, Ctx), Cause> {
    let h: Header = Elf::parse_header(file)?;
    if !matches!(h.e_machine, header::EM_386 | header::EM_X86_64) {
        return Err(Cause::Foreign(header::machine_to_str(h.e_machine).to_owned()));
    }
    let container = h.container()?;
    if h.e_ident[header::EI_DATA] != header::ELFDATA2LSB {
        return Err(damaged("big-endian"));
    }
    let (at, size) = (h.e_phoff, if container == Container::Big { 56 } else { 32 });
    // Sections are of no use here, but their headers are the end of most files.
    let sections = h.e_shoff.saturating_add(u64::from(h.e_shnum) * u64::from(h.e_shentsize));
    let need = at.saturating_add(u64::from(h.e_phnum) * size).max(sections);
    if need > file.len() as u64 {
        return Err(Cause::Truncated { have: file.len() as u64, need });
    }
    let ctx = Ctx::new(container, Endian::Little);
    let list = ProgramHeader::parse(file, at as usize, h.e_phnum.into(), ctx)?;
    Ok((list, ctx))
}

/// The bytes that `ph` has in the file.
fn content<'a>(file: &'a [u8], ph: &ProgramHeader) -> Result<&'a [u8], Cause> {
    let need = ph.p_offset.saturating_add(ph.p_filesz);
    let cut = Cause::Truncated { have: file.len() as u64, need };
    if need > file.len() as u64 {
        return Err(cut);
    }
    file.get(ph.p_offset as usize..need as usize).ok_or(cut)
}

/// The entry point that the notes give.
fn entry_point(file: &[u8], list: &[ProgramHeader], ctx: Ctx) -> Result<u64, Cause> {
    for ph in list.iter().filter(|ph| ph.p_type == PT_NOTE) {
        let data = content(file, ph)?;
        let ctx = (if ph.p_align == 8 { 8 } else { 4 }, ctx);
        let notes = NoteDataIterator { data, size: data.len(), offset: 0, ctx };
        // A note that cannot be parsed ends its segment: those before it still count.
        for n in notes.map_while(Result::ok) {
            if n.n_type == XEN_ELFNOTE_PHYS32_ENTRY && n.name == "Xen" {
                return match *n.desc {
                    [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => {
                        Ok(u32::from_le_bytes([a, b, c, d]).into())
                    }
                    _ => Err(damaged("the PVH note holds no 32-bit address")),
                };
            }
        }
    }
    Err(Cause::NoPvhNote)
}

/// The parts of an ELF file, and its entry point.
pub(super) fn segments<'a>(job: &Job<'a>) -> Result<(Vec<Part<'a>>, u64), Cause> {
    let entry = Elf::parse_header(job.kernel)?.e_entry;
    let (list, ctx) = headers(job.kernel)?;
    job.check_cpu(ctx.container == Container::Big)?;
    Ok((parts(job, &list)?, entry))
}

fn parts<'a>(job: &Job<'a>, list: &[ProgramHeader]) -> Result<Vec<Part<'a>>, Cause> {
    let loads = list.iter().filter(|ph| ph.p_type == PT_LOAD && ph.p_memsz != 0);
    let segment = |ph: &ProgramHeader| {
        let data = content(job.kernel, ph)?;
        if ph.p_filesz > ph.p_memsz {
            return Err(damaged("a segment is longer in the file than in memory"));
        }
        part(job, ph.p_paddr, ph.p_paddr.saturating_add(ph.p_memsz), data)
    };
    loads.map(segment).collect()
}

/// Checks that what goes to `start` lies in free RAM.
pub(super) fn part<'a>(
    job: &Job<'a>,
    start: u64,
    end: u64,
    data: &'a [u8],
) -> Result<Part<'a>, Cause> {
    let inside = |ram: u64| {
        let inside = |e: &e820::Entry| e.base <= start && end <= e.base + e.len;
        e820::map(ram).iter().any(|e| e.kind == e820::Kind::Ram && inside(e))
    };
    if start >= low::END && inside(job.ram_size) {
        Ok(Part { start, end, data })
    } else if start >= e820::ONE_MIB && inside(e820::LOW_MAX) {
        Err(Cause::Memory { need: end, ram: job.ram_size })
    } else {
        Err(Cause::Segment { start, end })
    }
}

/// Loads the ELF file of `job`.
pub(super) fn load(job: &Job) -> Result<Entry, Cause> {
    let (list, ctx) = headers(job.kernel)?;
    job.check_cpu(ctx.container == Container::Big)?;
    let entry = entry_point(job.kernel, &list, ctx)?;
    let parts = parts(job, &list)?;
    if !parts.iter().any(|p| p.contains(entry)) {
        return Err(damaged(&format!("the PVH entry point {entry:#x} is in no segment")));
    }
    let ends = parts.iter().map(|p| p.end).filter(|&end| end <= e820::LOW_MAX);
    let above = ends.max().unwrap_or(0).max(e820::ONE_MIB);
    let (initrd_at, initrd_size) = job.place_initrd(above, e820::LOW_MAX)?;
    low::check_cmdline(job.cmdline, u64::MAX)?;

    parts.iter().for_each(|p| p.write(job.mem));
    job.mem.write_bytes(initrd_at, job.initrd.unwrap_or(&[]));
    low::write_cmdline(job.mem, job.cmdline);
    write_start_info(job, initrd_at, initrd_size);
    let regs = vec![(Reg::RBX, low::START_INFO)];
    Ok(Entry::new(job.mem, Mode::Protected32, entry, regs))
}

/// Writes `hvm_start_info` (version 1), one `hvm_modlist_entry` and the `hvm_memmap_table_entry`s.
fn write_start_info(job: &Job, initrd_at: u64, initrd_size: u64) {
    let map = e820::map(job.ram_size);
    let (modules, modlist) = if job.initrd.is_some() { (1, MODLIST) } else { (0, 0) };
    let pair = |low: u64, high: u64| low | high << 32;
    let info = [
        pair(MAGIC.into(), 1),     // magic, version
        pair(0, modules),          // flags, nr_modules
        modlist,                   // modlist_paddr
        low::CMDLINE,              // cmdline_paddr
        job.rsdp,                  // rsdp_paddr
        MEMMAP,                    // memmap_paddr
        pair(map.len() as u64, 0), // memmap_entries, reserved
    ];
    let rows = map.iter().flat_map(|e| [e.base, e.len, pair(e.kind as u64, 0)]).collect();
    // paddr, size, cmdline_paddr, reserved
    let module = vec![initrd_at, initrd_size, 0, 0];
    for (at, words) in [(low::START_INFO, info.to_vec()), (MODLIST, module), (MEMMAP, rows)] {
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        job.mem.write_bytes(at, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::try_load;
    use super::super::{Options, load};
    use super::*;
    use emu_core::width::Width::*;

    const RAM: u64 = 16 << 20;
    const BASE: u64 = 0x10_0000;
    const HEADER: usize = 64;
    const LOAD: usize = HEADER;
    const NOTE: usize = LOAD + 56;
    const NOTE_DATA: usize = NOTE + 56;
    const CODE: usize = NOTE_DATA + 20;

    /// A 64-bit ELF file: header, `PT_LOAD`, `PT_NOTE`, one note, 16 bytes of code with 32 of bss.
    fn image() -> Vec<u8> {
        let mut f = b"\x7fELF\x02\x01\x01".to_vec();
        f.resize(CODE, 0);
        f.extend([0x90; 16]);
        put(&mut f, 16, 2, 2); // ET_EXEC
        put(&mut f, 18, 2, 62); // EM_X86_64
        put(&mut f, 20, 4, 1);
        put(&mut f, 32, 8, HEADER as u64); // e_phoff
        put(&mut f, 54, 2, 56); // e_phentsize
        put(&mut f, 56, 2, 2); // e_phnum
        put(&mut f, LOAD, 4, 1);
        put(&mut f, LOAD + 8, 8, CODE as u64); // p_offset
        put(&mut f, LOAD + 24, 8, BASE); // p_paddr
        put(&mut f, LOAD + 32, 8, 16); // p_filesz
        put(&mut f, LOAD + 40, 8, 48); // p_memsz
        put(&mut f, NOTE, 4, 4);
        put(&mut f, NOTE + 8, 8, NOTE_DATA as u64);
        put(&mut f, NOTE + 32, 8, 20);
        put(&mut f, NOTE + 40, 8, 20);
        put(&mut f, NOTE + 48, 8, 4); // p_align
        put(&mut f, NOTE_DATA, 4, 4); // namesz
        put(&mut f, NOTE_DATA + 4, 4, 4); // descsz
        put(&mut f, NOTE_DATA + 8, 4, 18);
        f[NOTE_DATA + 12..NOTE_DATA + 16].copy_from_slice(b"Xen\0");
        put(&mut f, NOTE_DATA + 16, 4, BASE + 4);
        f
    }

    fn put(f: &mut [u8], at: usize, size: usize, v: u64) {
        f[at..at + size].copy_from_slice(&v.to_le_bytes()[..size]);
    }

    fn with(fields: &[(usize, usize, u64)]) -> Vec<u8> {
        let mut f = image();
        for &(at, size, v) in fields {
            put(&mut f, at, size, v);
        }
        f
    }

    #[test]
    fn a_kernel_finds_its_start_info() {
        let mem = PhysMem::flat(RAM).unwrap();
        mem.write_bytes(BASE, &[0xff; 64]);
        let e = load(&mem, RAM, &image(), Some(b"initrd"), "hi", 0xe_0000, Options::default());
        let e = e.unwrap();
        assert_eq!((e.mode, e.rip, e.cr0, e.tr.limit), (Mode::Protected32, BASE + 4, 0x11, 0x67));
        assert_eq!(mem.read(BASE + 8, W64), 0x9090_9090_9090_9090);
        assert_eq!(mem.read(BASE + 16, W64) | mem.read(BASE + 40, W64), 0, "bss");
        assert_eq!(mem.read(BASE + 48, W8), 0xff, "behind bss");

        let info = e.regs[0].1;
        assert_eq!(e.regs, [(Reg::RBX, info)]);
        assert_eq!(mem.read(info, W64), 1 << 32 | u64::from(MAGIC));
        assert_eq!(mem.read(info + 12, W32), 1);
        let module = mem.read(info + 16, W64);
        let (at, size) = (mem.read(module, W64), mem.read(module + 8, W64));
        assert_eq!((at, size, mem.read(at, W32)), (RAM - 4096, 6, 0x7469_6e69));
        assert_eq!(mem.read(mem.read(info + 24, W64), W32) & 0xff_ffff, 0x6968);
        assert_eq!(mem.read(info + 32, W64), 0xe_0000);
        let (table, rows) = (mem.read(info + 40, W64), mem.read(info + 48, W32));
        let map = e820::map(RAM);
        assert_eq!(rows, map.len() as u64);
        for (i, e) in map.iter().enumerate() {
            let row = [0, 8, 16].map(|o| mem.read(table + 24 * i as u64 + o, W64));
            assert_eq!(row, [e.base, e.len, e.kind as u64]);
        }
        assert!(table + 24 * rows <= low::START_INFO + 4096);
    }

    #[test]
    fn without_an_initrd_there_are_no_modules() {
        let mem = PhysMem::flat(RAM).unwrap();
        load(&mem, RAM, &image(), None, "", 0, Options::default()).unwrap();
        assert_eq!(mem.read(low::START_INFO + 12, W32), 0);
        assert_eq!(mem.read(low::START_INFO + 16, W64), 0);
    }

    #[test]
    fn a_32_bit_elf_file_with_the_note_boots() {
        let mut f = b"\x7fELF\x01\x01\x01".to_vec();
        f.resize(52 + 64, 0);
        let (note, code) = (f.len(), f.len() + 20);
        f.extend(&image()[NOTE_DATA..CODE]);
        f.extend([0x90; 16]);
        for (at, size, v) in [(16, 2, 2), (18, 2, 3), (28, 4, 52), (42, 2, 32), (44, 2, 2)] {
            put(&mut f, at, size, v);
        }
        // p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_flags, p_align
        let load = [1, code as u64, 0, BASE, 16, 16, 5, 1];
        let notes = [4, note as u64, 0, 0, 20, 20, 4, 4];
        for (i, v) in load.into_iter().chain(notes).enumerate() {
            put(&mut f, 52 + 4 * i, 4, v);
        }
        assert_eq!(try_load(RAM, &f, None).unwrap().rip, BASE + 4);
        let mem = PhysMem::flat(RAM).unwrap();
        let opts = Options { no_long_mode: Some("i486"), ..Options::default() };
        assert!(super::super::load(&mem, RAM, &f, None, "", 0, opts).is_ok());
        let e = super::super::load(&mem, RAM, &image(), None, "", 0, opts).unwrap_err();
        assert_eq!(e.cause, Cause::LongMode("i486".to_owned()));
        put(&mut f, note + 8, 4, 1);
        assert_eq!(try_load(RAM, &f, None), Err(Cause::NoPvhNote));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mem = PhysMem::flat(RAM).unwrap();
        let whole = image();
        for n in 0..whole.len() {
            let r = load(&mem, RAM, &whole[..n], None, "", 0, Options::default());
            let cause = r.expect_err("a part of a kernel").cause;
            match n {
                0 => assert_eq!(cause, Cause::Empty),
                1..4 => assert_eq!(cause, Cause::NotAKernel),
                4..HEADER => assert!(matches!(cause, Cause::Elf(_)), "{n}: {cause}"),
                _ => assert!(matches!(cause, Cause::Truncated { .. }), "{n}: {cause}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        let segment = |start, end| Cause::Segment { start, end };
        let paddr = LOAD + 24;
        let len = image().len() as u64;
        for (fields, cause) in [
            (&[(18, 2, 183)][..], Cause::Foreign("AARCH64".to_owned())),
            (&[(NOTE_DATA + 8, 4, 17)], Cause::NoPvhNote),
            (&[(NOTE_DATA + 12, 1, 0x78)], Cause::NoPvhNote),
            (&[(56, 2, 1)], Cause::NoPvhNote),
            (&[(56, 2, 0xffff)], Cause::Truncated { have: len, need: 64 + 0xffff * 56 }),
            (&[(32, 8, u64::MAX)], Cause::Truncated { have: len, need: u64::MAX }),
            (
                &[(40, 8, len - 63), (58, 4, 0x1_0040)],
                Cause::Truncated { have: len, need: len + 1 },
            ),
            (&[(paddr, 8, 0x1000)], segment(0x1000, 0x1030)),
            (&[(paddr, 8, low::END - 1)], segment(low::END - 1, low::END + 47)),
            (&[(paddr, 8, 0x9_fbf0)], segment(0x9_fbf0, 0x9_fc20)),
            (&[(paddr, 8, 0xa_0000)], segment(0xa_0000, 0xa_0030)),
            (&[(paddr, 8, 0xf_fff0)], segment(0xf_fff0, 0x10_0020)),
            (&[(paddr, 8, 0xfee0_0000)], segment(0xfee0_0000, 0xfee0_0030)),
            (&[(paddr, 8, u64::MAX - 3)], segment(u64::MAX - 3, u64::MAX)),
            (&[(paddr, 8, RAM - 8)], Cause::Memory { need: RAM + 40, ram: RAM }),
            (&[(LOAD + 40, 8, u64::MAX)], segment(BASE, u64::MAX)),
            (&[(LOAD + 32, 8, u64::MAX)], Cause::Truncated { have: len, need: u64::MAX }),
            (&[(LOAD + 8, 8, u64::MAX)], Cause::Truncated { have: len, need: u64::MAX }),
        ] {
            assert_eq!(try_load(RAM, &with(fields), None), Err(cause), "{fields:x?}");
        }
        for fields in [
            &[(LOAD + 40, 8, 15)][..],         // longer in the file than in memory
            &[(NOTE_DATA + 16, 4, BASE + 48)], // entry behind the segment
            &[(LOAD, 4, 0)],                   // nothing to load
            &[(5, 1, 3)],                      // no such byte order
            &[(4, 1, 9)],                      // no such class
            &[(NOTE_DATA + 4, 4, 2), (CODE - 4, 2, 0)], // a note of two bytes
        ] {
            assert!(matches!(try_load(RAM, &with(fields), None), Err(Cause::Elf(_))), "{fields:?}");
        }
        let big = vec![0; 16 << 20];
        assert!(matches!(try_load(RAM, &image(), Some(&big)), Err(Cause::Initrd { .. })));
        let mem = PhysMem::flat(RAM).unwrap();
        let long = "x".repeat(0x1_0000);
        let e = load(&mem, RAM, &image(), None, &long, 0, Options::default()).unwrap_err();
        assert_eq!(e.cause, Cause::CommandLine { len: 0x1_0000, max: 0xffff });
    }

    #[test]
    fn no_single_byte_of_the_headers_can_make_it_panic() {
        let mem = PhysMem::flat(RAM).unwrap();
        for at in 4..CODE {
            for v in [0, 1, 0x7f, 0x80, 0xff] {
                let mut f = image();
                f[at] = v;
                let _ = load(&mem, RAM, &f, Some(b"initrd"), "x", 0, Options::default());
            }
        }
    }
}
