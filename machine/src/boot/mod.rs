//! Direct kernel boot: puts a kernel, its initial RAM disk and its command line into memory and
//! says in which state a CPU has to be to run it, without any firmware.
//!
//! [`load`] looks at the file and picks the protocol: a Multiboot header ([`multiboot`]), a Linux
//! `bzImage` ([`bzimage`]) or an ELF file with a PVH entry point ([`pvh`]). All checks come before
//! the first write, so a kernel that is refused leaves memory as it was. The file is not trusted:
//! whatever is in it, the outcome is an [`Entry`] or a [`BootError`].

pub mod bzimage;
pub mod e820;
mod low;
pub mod multiboot;
mod params;
pub mod pvh;

use emu_core::cpu::{Reg, Segment, TableReg};
use emu_core::mem::PhysMem;
use multiboot::Module;

/// In which processor mode a kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Protected mode, 32-bit code, paging off.
    Protected32,
    /// 64-bit mode, the first 4 GiB mapped to themselves.
    Long64,
}

/// The state of the first CPU at the kernel's first instruction. General registers that are not
/// in `regs` are zero, RFLAGS is 2 (interrupts off), all segment bases are zero, IDTR and LDTR
/// are as after reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Processor mode; the other fields agree with it.
    pub mode: Mode,
    /// Address of the first instruction.
    pub rip: u64,
    /// A stack that may be written.
    pub rsp: u64,
    /// What the boot protocol passes in general registers.
    pub regs: Vec<(Reg, u64)>,
    /// CS.
    pub cs: Segment,
    /// DS, ES, SS, FS and GS.
    pub data: Segment,
    /// TR: a 32-bit TSS at 0.
    pub tr: Segment,
    /// GDTR; the table is in memory.
    pub gdt: TableReg,
    /// CR0.
    pub cr0: u64,
    /// CR3; 0 without paging.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// `IA32_EFER`.
    pub efer: u64,
}

impl Entry {
    /// Leaves the tables of `mode` in memory and describes a CPU that uses them.
    fn new(mem: &PhysMem, mode: Mode, rip: u64, regs: Vec<(Reg, u64)>) -> Entry {
        const PE_ET: u64 = 0x11;
        const PG: u64 = 1 << 31;
        const PAE: u64 = 1 << 5;
        const LME_LMA: u64 = 0x500;
        let long = mode == Mode::Long64;
        low::write_bios_data(mem);
        let (gdt, cs, data) = low::write_gdt(mem, long);
        Entry {
            mode,
            rip,
            rsp: low::STACK_TOP,
            regs,
            cs,
            data,
            tr: Segment { selector: 0, attr: 0x8b, limit: 0x67 },
            gdt,
            cr0: if long { PE_ET | PG } else { PE_ET },
            cr3: if long { low::write_page_tables(mem) } else { 0 },
            cr4: if long { PAE } else { 0 },
            efer: if long { LME_LMA } else { 0 },
        }
    }
}

/// What may be chosen about a boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The kernel's file name, for messages.
    pub name: &'a str,
    /// Starts a `bzImage` at its 32-bit entry point even if it has a 64-bit one.
    pub entry32: bool,
    /// Tells the kernel that a display card is in 80×25 text mode.
    pub text_mode: bool,
    /// The name of the CPU model if it has no 64-bit mode: 64-bit kernels are refused.
    pub no_long_mode: Option<&'a str>,
    /// What is loaded beside a Multiboot kernel.
    pub modules: &'a [Module],
}

/// Why a kernel cannot be booted: one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot boot {name}: {cause}")]
pub struct BootError {
    /// The kernel's file name.
    pub name: String,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong with a kernel, its initrd or its command line. Sizes are in bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A file of no bytes.
    #[error("the file is empty")]
    Empty,
    /// None of the formats.
    #[error("it is neither a Linux bzImage nor an ELF file; give a kernel for x86")]
    NotAKernel,
    /// A packed kernel without its unpacker.
    #[error("it is a file compressed by {0}; unpack it first")]
    Compressed(&'static str),
    /// A 64-bit kernel for a CPU without 64-bit mode.
    #[error(
        "it is a 64-bit kernel, and the CPU model {0} has no 64-bit mode (lm); give another --cpu, \
         or a 32-bit kernel"
    )]
    LongMode(String),
    /// A kernel for another processor.
    #[error("it is a kernel for another processor ({0}); give one for x86")]
    Foreign(String),
    /// The file ends too early.
    #[error("the file is cut short, it has {have} bytes of {need}; copy or build it again")]
    Truncated {
        /// Bytes in the file.
        have: u64,
        /// Bytes that its headers speak of.
        need: u64,
    },
    /// Linux before 2.6.22.
    #[error(
        "its boot protocol {}.{:02} is too old, 2.06 (Linux 2.6.22) is the oldest that works",
        .0 >> 8,
        .0 & 0xff
    )]
    OldProtocol(u16),
    /// A kernel that wants to be below 1 MiB.
    #[error("it is a zImage, loaded low; give a bzImage (make bzImage)")]
    ZImage,
    /// A setup header that makes no sense.
    #[error("its setup header is damaged ({field} is {value:#x}); copy or build it again")]
    Header {
        /// The field's name in the boot protocol.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// An ELF file that makes no sense.
    #[error("its ELF headers are damaged or cut short ({0}); copy or build it again")]
    Elf(String),
    /// An ELF file without an entry point that we know.
    #[error(
        "this ELF file has neither a PVH entry point nor a Multiboot header; give a bzImage, or a \
         vmlinux built with CONFIG_PVH"
    )]
    NoPvhNote,
    /// A segment where there is no RAM on any PC, or whose memory is in use.
    #[error(
        "its segment at {start:#x}-{end:#x} does not lie in free memory; link it at 1 MiB or above"
    )]
    Segment {
        /// First address.
        start: u64,
        /// End, exclusive.
        end: u64,
    },
    /// The kernel does not fit.
    #[error(
        "it needs {} of memory but the machine has {}: give more with -m",
        Size(*need),
        Size(*ram)
    )]
    Memory {
        /// Bytes of RAM needed.
        need: u64,
        /// Bytes of RAM there are.
        ram: u64,
    },
    /// More modules than the list has room for.
    #[error("{given} modules are given, it can have {max}")]
    Modules {
        /// How many.
        given: usize,
        /// How many there may be.
        max: usize,
    },
    /// Modules for a kernel that takes none.
    #[error("it is no Multiboot kernel, which alone takes modules; leave out --module")]
    NoModules,
    /// An initrd of no bytes.
    #[error("the initrd is empty; leave it out or give the right file")]
    EmptyInitrd,
    /// The initrd does not fit.
    #[error(
        "the initrd of {} does not fit between the kernel's end at {above:#x} and {below:#x} \
         in {} of memory: {}",
        Size(*size),
        Size(*ram),
        if below < limit { "give more with -m" } else { "use a smaller one" }
    )]
    Initrd {
        /// Its size.
        size: u64,
        /// End of the kernel.
        above: u64,
        /// End of the room.
        below: u64,
        /// Where the room would end with more RAM.
        limit: u64,
        /// Bytes of RAM there are.
        ram: u64,
    },
    /// The command line is too long.
    #[error("the command line has {len} characters, the kernel takes at most {max}; shorten it")]
    CommandLine {
        /// Characters given.
        len: usize,
        /// Characters possible.
        max: u64,
    },
}

/// A number of bytes, for people.
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.0 {
            n @ 0x10_0000.. => write!(f, "{} MiB", n.div_ceil(1 << 20)),
            n @ 1024.. => write!(f, "{} KiB", n.div_ceil(1024)),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// Everything that a protocol needs.
struct Job<'a> {
    mem: &'a PhysMem,
    ram_size: u64,
    kernel: &'a [u8],
    initrd: Option<&'a [u8]>,
    cmdline: &'a str,
    rsdp: u64,
    opts: Options<'a>,
}

impl Job<'_> {
    /// Refuses a 64-bit kernel if the CPU is none for it.
    fn check_cpu(&self, long: bool) -> Result<(), Cause> {
        match self.opts.no_long_mode {
            Some(model) if long => Err(Cause::LongMode(model.to_owned())),
            _ => Ok(()),
        }
    }

    /// Finds room for the initrd as high as possible, in whole pages of RAM from `above` on and
    /// below `limit`. Gives address and size; zeros without an initrd.
    fn place_initrd(&self, above: u64, limit: u64) -> Result<(u64, u64), Cause> {
        let Some(initrd) = self.initrd else { return Ok((0, 0)) };
        let size = initrd.len() as u64;
        let below = e820::split(self.ram_size).0.min(limit);
        if size == 0 {
            return Err(Cause::EmptyInitrd);
        }
        match below.checked_sub(size).map(|at| at & !4095) {
            Some(at) if at >= above => Ok((at, size)),
            _ => Err(Cause::Initrd { size, above, below, limit, ram: self.ram_size }),
        }
    }
}

/// Loads `kernel` for a machine with `ram_size` bytes of RAM laid out as [`e820`] has it. `rsdp`
/// is the address of the ACPI root pointer (0: let the kernel search).
///
/// # Errors
/// See [`Cause`]; memory is unchanged then.
pub fn load(
    mem: &PhysMem,
    ram_size: u64,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
    rsdp: u64,
    opts: Options,
) -> Result<Entry, BootError> {
    let job = Job { mem, ram_size, kernel, initrd, cmdline, rsdp, opts };
    let entry = if multiboot::detect(kernel) {
        multiboot::load(&job)
    } else if !opts.modules.is_empty() {
        Err(Cause::NoModules)
    } else if kernel.starts_with(b"\x7fELF") {
        pvh::load(&job)
    } else if bzimage::detect(kernel) {
        bzimage::load(&job)
    } else {
        Err(unknown(kernel))
    };
    entry.map_err(|cause| BootError { name: opts.name.to_owned(), cause })
}

/// Says what a file is that is no kernel for us.
fn unknown(file: &[u8]) -> Cause {
    const MAGICS: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x5d\0\0", "lzma"),
    ];
    if file.is_empty() {
        Cause::Empty
    } else if let Some((_, packer)) = MAGICS.iter().find(|(magic, _)| file.starts_with(magic)) {
        Cause::Compressed(packer)
    } else if file.get(0x38..0x3c) == Some(b"ARM\x64") {
        Cause::Foreign("arm64".to_owned())
    } else if file.get(0x30..0x35) == Some(b"RISCV") {
        Cause::Foreign("riscv".to_owned())
    } else {
        Cause::NotAKernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads into fresh memory of `ram` bytes.
    pub fn try_load(ram: u64, kernel: &[u8], initrd: Option<&[u8]>) -> Result<Entry, Cause> {
        let mem = PhysMem::flat(ram).unwrap();
        let opts = Options { name: "k", ..Options::default() };
        load(&mem, ram, kernel, initrd, "quiet", 0, opts).map_err(|e| e.cause)
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let mut arm = vec![0; 64];
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        for (file, cause) in [
            (&b""[..], Cause::Empty),
            (b"\x7f", Cause::NotAKernel),
            (b"hello", Cause::NotAKernel),
            (&[0; 4096], Cause::NotAKernel),
            (b"\x1f\x8b\x08\0", Cause::Compressed("gzip")),
            (b"\xfd7zXZ\0\0", Cause::Compressed("xz")),
            (&arm, Cause::Foreign("arm64".to_owned())),
        ] {
            assert_eq!(try_load(1 << 20, file, None), Err(cause));
        }
    }

    #[test]
    fn messages_are_one_line_with_numbers() {
        let cause = Cause::Initrd {
            size: 600 << 20,
            above: 0x437_8000,
            below: 512 << 20,
            limit: 0x8000_0000,
            ram: 512 << 20,
        };
        let e = BootError { name: "vmlinuz".to_owned(), cause };
        assert_eq!(
            e.to_string(),
            "cannot boot vmlinuz: the initrd of 600 MiB does not fit between the kernel's end at \
             0x4378000 and 0x20000000 in 512 MiB of memory: give more with -m"
        );
        let old = Cause::OldProtocol(0x201).to_string();
        assert!(old.starts_with("its boot protocol 2.01 is too old"), "{old}");
        assert_eq!(Size(1025).to_string(), "2 KiB");
    }
}
