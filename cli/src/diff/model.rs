//! The model in the oracle's place: a whole vCPU in user mode, with page tables and descriptors
//! as a sample finds them on the host, whose faults are taken down and not delivered.

use super::encode::bitness;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Frontend, Reg, Seg, Segment, St, TableReg, X87};
use emu_core::fault::{Fault, vector};
use emu_core::mem::PhysMem;
use emu_core::vcpu::{Stop, Vcpu};
use emu_core::watch::Watch;
use emu_core::width::Width::{W16, W64};
use frontend_x86::sys::cpuid::Features;
use frontend_x86::{FRONTEND, sys};
use machine::{CpuModel, Error};
use oracle::{
    CODE, CS32, CS64, DATA, EXIT, Judged, MEMORY, MEMORY_LEN, Outcome, Sample, State, image,
};
use std::sync::Arc;

const RAM: u64 = 0x4_0000;
const GDT: u64 = 0x1000;
const TSS: u64 = 0x2000;
/// Linear address of physical address 0, for supervisors only.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// PML4, page-directory-pointer table and page directory of user addresses, their two page tables,
/// then the upper tables of [`KERNEL`], which has one large page.
const TABLES: u64 = 0x8000;
/// Guest-physical addresses behind [`MEMORY`] and [`CODE`].
const DATA_PA: u64 = 0x1_0000;
const CODE_PA: u64 = 0x2_0000;
/// Instructions after which a sample counts as endless.
const BUDGET: i64 = 100_000;

static JUDGED: Frontend = Frontend {
    deliver_fault: |cpu, fault| {
        cpu.fault = fault;
        cpu.shutdown = true;
    },
    single_step: |cpu| {
        cpu.fault = Fault::new(vector::DB);
        cpu.shutdown = true;
    },
    ..FRONTEND
};

/// Segment registers and bases for one code size.
type Segments = ([Segment; 6], [u64; 6]);

/// The CPU model under test.
pub struct Model {
    vcpu: Vcpu,
    segments: [Segments; 2],
}

impl Model {
    /// The CPU `model`, which must have 64-bit mode, on the interpreter; without the instructions
    /// that this host's CPU lacks.
    ///
    /// # Panics
    /// When the host has not even [`RAM`] bytes to spare.
    #[must_use]
    pub fn new(model: CpuModel) -> Model {
        let mem = PhysMem::flat(RAM).expect("some memory");
        let mut cpu = Cpu::new(mem, Arc::new(Clock::icount()), &JUDGED);
        model.apply(&mut cpu);
        // A host with an oracle has all of x86-64-v2.
        cpu.features &= Features::told(oracle::cpuid).0 | Features::X86_64_V2.0;
        sys::reset::reset(&mut cpu);
        // As Linux has them: kernel code of 32 bits and 64 bits, kernel data, user code of 32
        // bits, user data, user code of 64 bits; the TSS; a segment that tells the CPU number.
        let descriptors: [u64; 16] = [
            0,
            0x00cf_9b00_0000_ffff,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0,
            0x0000_8b00_0000_0067 | TSS << 16,
            0,
            0,
            0,
            0,
            0,
            0,
            0x0040_f500_0000_0000,
        ];
        for (n, d) in descriptors.iter().enumerate() {
            cpu.mem.write(GDT + 8 * n as u64, W64, *d);
        }
        // No gate is there for user mode.
        cpu.sys.idtr = TableReg { base: KERNEL, limit: 0 };
        // No I/O permission map.
        cpu.mem.write(TSS + 102, W16, 0x68);
        cpu.sys.gdtr = TableReg { base: KERNEL + GDT, limit: 127 };
        cpu.sys.ldtr = Segment::default();
        cpu.sys.tr = Segment { selector: 0x40, attr: 0x8b, limit: 0x67 };
        cpu.sys.tr_base = KERNEL + TSS;
        let (upper, data, code) = (7, 0x67 | 1 << 63, 0x25);
        let tables = [0, 1, 2, 3, 4, 5, 6].map(|n| TABLES + n * 0x1000);
        cpu.mem.write(tables[0] + 256 * 8, W64, tables[5] | 3);
        cpu.mem.write(tables[5], W64, tables[6] | 3);
        cpu.mem.write(tables[6], W64, 0xe3);
        cpu.mem.write(tables[0], W64, tables[1] | upper);
        cpu.mem.write(tables[1], W64, tables[2] | upper);
        for (va, table) in [(MEMORY, tables[3]), (CODE, tables[4])] {
            cpu.mem.write(tables[2] + (va >> 21 & 511) * 8, W64, table | upper);
        }
        let page = |table: u64, va: u64, entry: u64| {
            cpu.mem.write(table + (va >> 12 & 511) * 8, W64, entry);
        };
        for at in (0..MEMORY_LEN as u64).step_by(4096) {
            page(tables[3], MEMORY + at, (DATA_PA + at) | data);
        }
        page(tables[4], CODE, CODE_PA | code);
        use sys::{cr0, cr4, efer};
        cpu.sys.cr3 = tables[0];
        cpu.sys.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG;
        cpu.sys.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::FSGSBASE | cr4::UMIP;
        cpu.sys.cr4 |= cr4::OSXSAVE;
        cpu.sys.xcr0 = sys::control::xcr0_supported(&cpu);
        cpu.sys.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        cpu.tlb.flush_all(true);
        cpu.cpl = 0;
        sys::mode::update(&mut cpu);
        let segments = [CS32, CS64].map(|cs| {
            cpu.cpl = 3;
            for s in Seg::ALL {
                let selector = if s == Seg::Cs { cs } else { DATA };
                let d = sys::segment::require(&mut cpu, selector, vector::GP);
                sys::segment::set(&mut cpu, s, &d.expect("it is in the GDT"));
            }
            (cpu.segs, Seg::ALL.map(|s| cpu.base(s)))
        });
        Model { vcpu: Vcpu::new(cpu), segments }
    }

    /// Runs samples as host code from now on, as far as it can be made: a sample is new code each
    /// time, so all of it is translated before it runs.
    ///
    /// # Errors
    /// When there is no code generator.
    pub fn translated(mut self) -> Result<Model, Error> {
        let translator = machine::host_translator().ok_or(Error::NoTranslator)?;
        self.vcpu.set_translator(translator, 1);
        Ok(self)
    }

    /// Blocks that were translated to host code.
    #[must_use]
    pub fn host_blocks(&self) -> u64 {
        self.vcpu.cache.translator().map_or(0, |t| t.stats().blocks)
    }

    /// CPUID features of the model.
    #[must_use]
    pub fn features(&self) -> u128 {
        self.vcpu.cpu.features
    }

    /// Runs one sample.
    pub fn run(&mut self, sample: &Sample) -> Judged {
        self.load(sample);
        let stop = self.vcpu.run(BUDGET);
        let cpu = &mut self.vcpu.cpu;
        let fault = cpu.fault;
        let outcome = match stop {
            // Nothing is mapped where samples end.
            Stop::Shutdown if cpu.rip() == EXIT && fault.vector == vector::PF => Outcome::Done,
            Stop::Shutdown => Outcome::Fault {
                vector: fault.vector,
                error: fault.error.unwrap_or(0),
                address: fault.address,
            },
            Stop::Budget | Stop::Halted => Outcome::Timeout,
        };
        let mut memory = Box::new([0; MEMORY_LEN]);
        cpu.mem.read_bytes(DATA_PA, memory.as_mut_slice());
        Judged { outcome, state: state(cpu), memory }
    }

    fn load(&mut self, sample: &Sample) {
        let cpu = &mut self.vcpu.cpu;
        cpu.mem.write_bytes(DATA_PA, sample.memory.as_slice());
        cpu.mem.write_bytes(CODE_PA, &image(sample));
        let s = &sample.state;
        let (segs, bases) = &self.segments[usize::from(bitness(sample.bits) == 64)];
        cpu.segs = *segs;
        for (seg, base) in Seg::ALL.into_iter().zip(bases) {
            cpu.set_reg(seg.base(), *base);
        }
        cpu.set_reg(Reg::FS_BASE, s.fs_base);
        cpu.set_reg(Reg::GS_BASE, s.gs_base);
        cpu.regs[..16].copy_from_slice(&s.gpr);
        cpu.set_rflags(s.rflags);
        cpu.set_rip(CODE);
        cpu.mxcsr = s.mxcsr;
        cpu.v[..16].copy_from_slice(&s.ymm);
        let top = usize::from(s.x87.sw >> 11 & 7);
        cpu.x87 = X87 { cw: s.x87.cw, sw: s.x87.sw, full: s.x87.full, ..X87::default() };
        for (i, (mant, se)) in s.x87.st.into_iter().enumerate() {
            cpu.x87.st[(top + i) & 7] = St { mant, se };
        }
        (cpu.shutdown, cpu.halted, cpu.shadow, cpu.cpl) = (false, false, false, 3);
        cpu.watch = Watch::default();
        sys::mode::update(cpu);
    }
}

impl Default for Model {
    fn default() -> Self {
        Model::new(CpuModel::default())
    }
}

/// The registers of `cpu`.
fn state(cpu: &Cpu) -> State {
    let mut s = State {
        rip: cpu.rip(),
        rflags: cpu.rflags(),
        fs_base: cpu.base(Seg::Fs),
        gs_base: cpu.base(Seg::Gs),
        selectors: [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs].map(|s| cpu.segs[s as usize].selector),
        mxcsr: cpu.mxcsr,
        ..State::default()
    };
    s.gpr.copy_from_slice(&cpu.regs[..16]);
    s.ymm.copy_from_slice(&cpu.v[..16]);
    let x = &cpu.x87;
    (s.x87.cw, s.x87.sw, s.x87.full) = (x.cw, x.sw, x.full);
    let top = usize::from(x.sw >> 11 & 7);
    for (i, st) in s.x87.st.iter_mut().enumerate() {
        let r = x.st[(top + i) & 7];
        *st = (r.mant, r.se);
    }
    s
}
