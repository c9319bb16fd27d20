//! Multiboot 1: kernels with a header in their first 8 KiB that asks a boot loader for little more
//! than to be loaded. Xen, hobby kernels and kernels for tests.
//!
//! A kernel is an ELF file (32 or 64 bits, segments go to their physical addresses), or any file
//! whose header itself says what goes where (the "a.out kludge"). It is entered in 32-bit protected
//! mode without paging, EAX holding a magic number and EBX the address of the information
//! structure: memory, command line, modules, memory map. Modules lie in whole pages behind the
//! kernel. As boot loaders do, the command line and the modules' strings begin with the file's
//! name.
//!
//! Source: Multiboot Specification version 0.6.96, chapter 3.

use super::pvh::{self, Part};
use super::{Cause, Entry, Job, Mode, e820, low};
use emu_core::cpu::Reg;

/// A header lies here at most, and wholly in it.
const SEARCH: usize = 8192;
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What EAX holds.
const BOOT_MAGIC: u64 = 0x2bad_b002;

/// The header says where to load: `header_addr` to `entry_addr` are valid.
const AOUT_KLUDGE: u32 = 1 << 16;
/// Demands that a loader may refuse: all of bits 15:0 but page alignment, memory and video.
const UNKNOWN: u32 = 0xfff8;

/// Information: memory sizes, command line, modules, memory map, loader's name.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
const INFO_LEN: usize = 116;
const INFO: u64 = low::START_INFO;
const MEMORY_MAP: u64 = INFO + 0x100;
const MODULES: u64 = INFO + 0x400;
/// A page of them: as many modules as fit before the page tables.
const MODULES_MAX: usize = (0x1000 - 0x400) / 16;
const LOADER: &str = "ring3";

/// A file that is loaded beside the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its name and arguments.
    pub string: String,
}

/// A header: its offset in the file, and its words.
#[derive(Clone, Copy)]
struct Header {
    at: usize,
    words: [u32; 8],
}

/// Finds the header.
fn header(file: &[u8]) -> Option<Header> {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    let is_header = |&at: &usize| {
        let sum = word(at).wrapping_add(word(at + 4)).wrapping_add(word(at + 8));
        word(at) == HEADER_MAGIC && sum == 0
    };
    let at = (0..file.len().min(SEARCH).saturating_sub(11)).step_by(4).find(is_header)?;
    Some(Header { at, words: [0, 1, 2, 3, 4, 5, 6, 7].map(|n| word(at + 4 * n)) })
}

/// Whether `file` has a header.
pub(super) fn detect(file: &[u8]) -> bool {
    header(file).is_some()
}

/// The part and the entry point that the header itself gives.
fn kludge<'a>(job: &Job<'a>, h: &Header) -> Result<(Part<'a>, u64), Cause> {
    let [_, _, _, header_addr, load, load_end, bss_end, entry] = h.words.map(u64::from);
    let damaged = |field, value| Cause::Header { field, value };
    let before = header_addr.checked_sub(load).and_then(|n| (h.at as u64).checked_sub(n));
    let start = before.ok_or(damaged("load_addr", load))? as usize;
    let rest = job.kernel.get(start..).unwrap_or(&[]);
    // 0 stands for the end of the file, and for no memory to clear.
    let len = match load_end {
        0 => rest.len() as u64,
        end => end.checked_sub(load).ok_or(damaged("load_end_addr", end))?,
    };
    let need = start as u64 + len;
    let data = rest.get(..len as usize);
    let data = data.ok_or(Cause::Truncated { have: job.kernel.len() as u64, need })?;
    let end = (load + len).max(bss_end);
    Ok((pvh::part(job, load, end, data)?, entry))
}

/// Loads the kernel of `job`.
pub(super) fn load(job: &Job) -> Result<Entry, Cause> {
    let h = header(job.kernel).ok_or(Cause::NotAKernel)?;
    let flags = h.words[1];
    if flags & UNKNOWN != 0 {
        return Err(Cause::Header { field: "flags", value: flags.into() });
    }
    let (parts, entry) = if flags & AOUT_KLUDGE != 0 {
        let (part, entry) = kludge(job, &h)?;
        (vec![part], entry)
    } else {
        pvh::segments(job)?
    };
    if !parts.iter().any(|p| p.contains(entry)) {
        return Err(Cause::Elf(format!("the entry point {entry:#x} is in no segment")));
    }
    let initrd = job.initrd.map(|bytes| (bytes, "initrd"));
    let others = job.opts.modules.iter().map(|m| (&m.bytes[..], &m.string[..]));
    let modules: Vec<(&[u8], &str)> = initrd.into_iter().chain(others).collect();
    if modules.len() > MODULES_MAX {
        return Err(Cause::Modules { given: modules.len(), max: MODULES_MAX });
    }
    let mut at = parts.iter().map(|p| p.end).max().unwrap_or(0).max(e820::ONE_MIB);
    let mut places = Vec::new();
    for (bytes, _) in &modules {
        at = at.next_multiple_of(4096);
        places.push((at, at + bytes.len() as u64));
        at += bytes.len() as u64;
    }
    let ram = e820::split(job.ram_size).0;
    if at > ram {
        return Err(Cause::Memory { need: at, ram: job.ram_size });
    }
    let command = format!("{} {}", job.opts.name, job.cmdline);
    let strings = [LOADER, command.trim_end()].into_iter().chain(modules.iter().map(|m| m.1));
    let strings: Vec<&str> = strings.collect();
    low::check_cmdline(&strings.join("\0"), u64::MAX)?;

    parts.iter().for_each(|p| p.write(job.mem));
    for ((bytes, _), (start, _)) in modules.iter().zip(&places) {
        job.mem.write_bytes(*start, bytes);
    }
    let mut addresses = Vec::new();
    let mut to = low::CMDLINE;
    for s in strings {
        addresses.push(to);
        job.mem.write_bytes(to, &[s.as_bytes(), &[0]].concat());
        to += s.len() as u64 + 1;
    }
    write_info(job, &addresses, &places);
    let regs = vec![(Reg::RAX, BOOT_MAGIC), (Reg::RBX, INFO)];
    Ok(Entry::new(job.mem, Mode::Protected32, entry, regs))
}

/// Writes the information structure. `strings` are the addresses of the loader's name, the command
/// line and the modules' strings.
fn write_info(job: &Job, strings: &[u64], places: &[(u64, u64)]) {
    let bytes = |words: &[u64]| -> Vec<u8> {
        words.iter().flat_map(|&w| (w as u32).to_le_bytes()).collect()
    };
    let low = e820::split(job.ram_size).0;
    let map = e820::map(job.ram_size);
    let rows: Vec<u8> = map
        .iter()
        .flat_map(|e| {
            // The size does not count itself.
            let halves = [20, e.base, e.base >> 32, e.len, e.len >> 32, e.kind as u64];
            bytes(&halves)
        })
        .collect();
    let upper = low.saturating_sub(e820::ONE_MIB) >> 10;
    let mut info = bytes(&[
        FLAGS.into(),
        e820::EBDA.min(low) >> 10, // mem_lower
        upper,                     // mem_upper
        0,                         // boot_device
        strings[1],                // cmdline
        places.len() as u64,       // mods_count
        MODULES,                   // mods_addr
        0,
        0,
        0,
        0,                 // syms
        rows.len() as u64, // mmap_length
        MEMORY_MAP,        // mmap_addr
        0,
        0,
        0,          // drives, config_table
        strings[0], // boot_loader_name
    ]);
    info.resize(INFO_LEN, 0);
    let modules: Vec<u8> = places
        .iter()
        .zip(&strings[2..])
        .flat_map(|((start, end), string)| bytes(&[*start, *end, *string, 0]))
        .collect();
    for (at, bytes) in [(INFO, info), (MEMORY_MAP, rows), (MODULES, modules)] {
        job.mem.write_bytes(at, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, load};
    use super::*;
    use emu_core::mem::PhysMem;
    use emu_core::width::Width::*;

    const RAM: u64 = 16 << 20;

    /// A kernel of 64 bytes whose header, at 16, says where it goes.
    fn kernel(flags: u32) -> Vec<u8> {
        let sum = 0_u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags);
        let words =
            [HEADER_MAGIC, flags, sum, 0x10_0010, 0x10_0000, 0x10_0040, 0x10_2000, 0x10_0030];
        let mut file = vec![0x90; 16];
        file.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        file.resize(64, 0xf4);
        file
    }

    fn boot(file: &[u8], modules: &[Module]) -> (PhysMem, Result<Entry, Cause>) {
        let mem = PhysMem::flat(RAM).unwrap();
        let opts = Options { name: "k", modules, ..Options::default() };
        let entry = load(&mem, RAM, file, None, "a b", 0, opts).map_err(|e| e.cause);
        (mem, entry)
    }

    fn string(mem: &PhysMem, at: u64) -> String {
        let bytes = (at..).map(|a| mem.read(a, W8) as u8).take_while(|&b| b != 0);
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn a_kernel_is_loaded_where_its_header_says() {
        let module = |n| Module { bytes: vec![n; 5000], string: format!("m{n} x") };
        let (mem, entry) = boot(&kernel(AOUT_KLUDGE | 3), &[module(1), module(2)]);
        let entry = entry.unwrap();
        assert_eq!((entry.rip, entry.mode), (0x10_0030, Mode::Protected32));
        assert_eq!(entry.regs, [(Reg::RAX, BOOT_MAGIC), (Reg::RBX, INFO)]);
        assert_eq!((mem.read(0x10_0000, W8), mem.read(0x10_003f, W8)), (0x90, 0xf4));
        let word = |at: u64| mem.read(INFO + at, W32);
        assert_eq!((word(0), word(4), word(8)), (FLAGS.into(), 639, 15 << 10));
        assert_eq!(
            (string(&mem, word(16)), string(&mem, word(64))),
            ("k a b".into(), LOADER.into())
        );
        assert_eq!(word(20), 2);
        let modules = word(24);
        for (n, start) in [(1, 0x10_2000), (2, 0x10_4000)] {
            let m = modules + 16 * (n - 1);
            assert_eq!((mem.read(m, W32), mem.read(m + 4, W32)), (start, start + 5000));
            assert_eq!(string(&mem, mem.read(m + 8, W32)), format!("m{n} x"));
            assert_eq!(mem.read(start + 4999, W8), n);
        }
        assert_eq!((word(44) % 24, mem.read(word(48), W32)), (0, 20));
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        let cause = |file: &[u8]| boot(file, &[]).1.unwrap_err();
        assert_eq!(
            cause(&kernel(AOUT_KLUDGE | 8)),
            Cause::Header { field: "flags", value: 0x1_0008 }
        );
        let file = kernel(AOUT_KLUDGE);
        assert_eq!(cause(&file[..63]), Cause::Truncated { have: 63, need: 64 });
        assert!(matches!(cause(&kernel(0)), Cause::Elf(_)));
        let set = |word: usize, value: u32| {
            let mut f = kernel(AOUT_KLUDGE);
            f[16 + 4 * word..20 + 4 * word].copy_from_slice(&value.to_le_bytes());
            cause(&f)
        };
        assert_eq!(set(4, 0x10_0011), Cause::Header { field: "load_addr", value: 0x10_0011 });
        assert_eq!(set(5, 1), Cause::Header { field: "load_end_addr", value: 1 });
        assert!(matches!(set(6, 0x4000_0000), Cause::Memory { .. }));
        assert!(matches!(set(7, 0), Cause::Elf(_)));
        let big = Module { bytes: vec![0; 15 << 20], string: String::new() };
        assert!(matches!(boot(&file, &[big]).1, Err(Cause::Memory { .. })));
        let many = vec![Module::default(); MODULES_MAX + 1];
        assert!(matches!(boot(&file, &many).1, Err(Cause::Modules { .. })));
    }
}
