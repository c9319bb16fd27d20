//! FXSAVE, FXRSTOR, XSAVE, XSAVEC, XRSTOR and MXCSR.
//!
//! The area is built as bytes and written in one go, or read whole and checked before the first
//! register is assigned. All components count as in use (XINUSE), as the manual allows. AVX state,
//! the first beyond the legacy region, has the same place in both formats; PKRU, the only other
//! one, follows it at once in the compacted format.
//!
//! Source: SDM Vol. 1, 10.5 and chapter 13.

use super::cpuid::Features;
use super::{control, cr0, cr4, mode, xcr0};
use emu_core::cpu::{Cpu, St, X87, mode as m};
use emu_core::fault::{Fault, Guest};
use emu_core::mem::tlb::Access;
use emu_core::width::Width::W64;

/// Bits of MXCSR that exist: what FXSAVE stores as `MXCSR_MASK`. DAZ came with SSE2.
const fn mxcsr_mask(cpu: &Cpu) -> u32 {
    if Features::SSE2.in_cpu(cpu) { 0xffff } else { 0xffbf }
}
/// MXCSR after RESET.
pub const MXCSR_RESET: u32 = 0x1f80;

/// Size of the legacy region.
const LEGACY: usize = 512;
/// Offset of the registers ST0–ST7 and XMM0 in it.
const ST: usize = 32;
const XMM: usize = 160;
/// Offset of the upper halves of YMM0–15 in an XSAVE area.
const YMM_HIGH: usize = 576;
/// Size of an area with them: what is built or read in one go.
const AREA: usize = 832;
/// Offset of PKRU in the standard format.
const PKRU: u64 = 2688;
/// Bit of XCOMP_BV: the area is in the compacted format.
const COMPACT: u64 = 1 << 63;

/// Registers that the mode has: XMM8–15 only in 64-bit mode.
fn xmm_count(cpu: &Cpu) -> usize {
    if cpu.mode & m::CODE64 != 0 { 16 } else { 8 }
}

/// Checks before FXSAVE and FXRSTOR, or with `xsave` before XSAVE and XRSTOR, on an area at
/// linear address `va`.
fn check(cpu: &Cpu, va: u64, xsave: bool) -> Guest<()> {
    if xsave && cpu.sys.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    if cpu.sys.cr0 & cr0::TS != 0 || !xsave && cpu.sys.cr0 & cr0::EM != 0 {
        return Err(Fault::NM);
    }
    if !xsave {
        cpu.check_alignment(va, 4)?;
    }
    if va & if xsave { 63 } else { 15 } != 0 { Err(Fault::GP0) } else { Ok(()) }
}

fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    area[at..at + bytes.len()].copy_from_slice(bytes);
}

fn get<const N: usize>(area: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&area[at..at + N]);
    out
}

fn get_u64(area: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(area, at))
}

/// TOP of a status word.
fn top(sw: u16) -> usize {
    usize::from(sw >> 11 & 7)
}

/// The x87 part of the legacy region (SDM Vol. 1, table 10-2); `rex_w`: 64-bit pointers.
fn put_x87(area: &mut [u8], x: &X87, rex_w: bool) {
    put(area, 0, &x.cw.to_le_bytes());
    put(area, 2, &x.sw.to_le_bytes());
    area[4] = x.full;
    put(area, 6, &x.fop.to_le_bytes());
    put(area, 8, &x.fip.to_le_bytes());
    put(area, 16, &x.fdp.to_le_bytes());
    if !rex_w {
        put(area, 12, &u32::from(x.fcs).to_le_bytes());
        put(area, 20, &u32::from(x.fds).to_le_bytes());
    }
    for i in 0..8 {
        let st = x.st[(top(x.sw) + i) & 7];
        put(area, ST + 16 * i, &st.mant.to_le_bytes());
        put(area, ST + 16 * i + 8, &st.se.to_le_bytes());
    }
}

fn get_x87(area: &[u8], rex_w: bool) -> X87 {
    let word = |at| u16::from_le_bytes(get(area, at));
    let pointer = |at| get_u64(area, at) & if rex_w { u64::MAX } else { 0xffff_ffff };
    let selector = |at| if rex_w { 0 } else { word(at) };
    let mut x = X87 {
        cw: word(0),
        sw: word(2),
        full: area[4],
        fop: word(6) & 0x7ff,
        fip: pointer(8),
        fcs: selector(12),
        fdp: pointer(16),
        fds: selector(20),
        ..X87::default()
    };
    for i in 0..8 {
        let at = ST + 16 * i;
        x.st[(top(x.sw) + i) & 7] = St { mant: get_u64(area, at), se: word(at + 8) };
    }
    crate::x87::settled(x)
}

fn put_mxcsr(area: &mut [u8], cpu: &Cpu) {
    put(area, 24, &cpu.mxcsr.to_le_bytes());
    put(area, 28, &mxcsr_mask(cpu).to_le_bytes());
}

/// Copies 128-bit halves of vector registers to `area` from `at` on; `half`: 0 low, 1 high.
fn put_vectors(area: &mut [u8], at: usize, cpu: &Cpu, half: usize) {
    for i in 0..xmm_count(cpu) {
        put(area, at + 16 * i, &cpu.v[i][2 * half].to_le_bytes());
        put(area, at + 16 * i + 8, &cpu.v[i][2 * half + 1].to_le_bytes());
    }
}

/// The way back; `None`: zeros.
fn get_vectors(area: Option<&[u8]>, at: usize, cpu: &mut Cpu, half: usize) {
    for i in 0..xmm_count(cpu) {
        let word = |k: usize| area.map_or(0, |a| get_u64(a, at + 16 * i + 8 * k));
        (cpu.v[i][2 * half], cpu.v[i][2 * half + 1]) = (word(0), word(1));
    }
}

/// Checks an MXCSR value.
///
/// # Errors
/// #GP(0) for reserved bits.
pub const fn check_mxcsr(cpu: &Cpu, value: u32) -> Guest<u32> {
    if value & !mxcsr_mask(cpu) == 0 { Ok(value) } else { Err(Fault::GP0) }
}

/// Sets MXCSR. Code is lifted for its masks (see [`m::XM`]), so a change of them ends the run; the
/// instruction ends its block.
fn set_mxcsr(cpu: &mut Cpu, value: u32) {
    cpu.mxcsr = value;
    let mode = mode::with_masks(cpu.mode, value);
    if mode != cpu.mode {
        cpu.mode = mode;
        cpu.kick();
    }
}

/// LDMXCSR.
///
/// # Errors
/// #GP(0) for reserved bits.
pub fn ldmxcsr(cpu: &mut Cpu, value: u32) -> Guest<()> {
    let value = check_mxcsr(cpu, value)?;
    set_mxcsr(cpu, value);
    Ok(())
}

/// FXSAVE (FXSAVE64 if `rex_w`) to linear address `va`.
///
/// # Errors
/// #NM, #GP(0) for alignment, #PF.
pub fn fxsave(cpu: &mut Cpu, va: u64, rex_w: bool) -> Guest<()> {
    check(cpu, va, false)?;
    cpu.probe(va, LEGACY as u64, Access::Write)?;
    // The last 96 bytes and, outside 64-bit mode, XMM8–15 are not written.
    let mut area = [0; LEGACY];
    put_x87(&mut area, &cpu.x87, rex_w);
    put_mxcsr(&mut area, cpu);
    put_vectors(&mut area, XMM, cpu, 0);
    let n = XMM + 16 * xmm_count(cpu);
    cpu.write_array(va, &area[..n])
}

/// FXRSTOR (FXRSTOR64 if `rex_w`) from linear address `va`.
///
/// # Errors
/// #NM, #GP(0) for alignment or reserved bits of MXCSR, #PF.
pub fn fxrstor(cpu: &mut Cpu, va: u64, rex_w: bool) -> Guest<()> {
    check(cpu, va, false)?;
    let area = cpu.read_array::<LEGACY>(va)?;
    let mxcsr = check_mxcsr(cpu, u32::from_le_bytes(get(&area, 24)))?;
    set_mxcsr(cpu, mxcsr);
    cpu.x87 = get_x87(&area, rex_w);
    get_vectors(Some(&area), XMM, cpu, 0);
    Ok(())
}

/// Linear address of PKRU in the area at `va`; `components` are those of the compacted format.
fn pkru_at(va: u64, compact: bool, components: u64) -> u64 {
    let after = if components & xcr0::AVX != 0 { AREA } else { YMM_HIGH };
    va.wrapping_add(if compact { after as u64 } else { PKRU })
}

/// XSAVE (XSAVE64 if `rex_w`) of the components in `mask` (EDX:EAX) to linear address `va` (SDM
/// Vol. 1, 13.7). XSAVEOPT may do the same. With `compact` it is XSAVEC (13.10).
///
/// # Errors
/// #UD, #NM, #GP(0) for alignment, #PF.
pub fn xsave(cpu: &mut Cpu, va: u64, mask: u64, rex_w: bool, compact: bool) -> Guest<()> {
    check(cpu, va, true)?;
    let rfbm = cpu.sys.xcr0 & mask;
    let avx = rfbm & xcr0::AVX != 0;
    let vectors = 16 * xmm_count(cpu);
    let end = if avx { YMM_HIGH + vectors } else { LEGACY + 64 };
    let pkru = (rfbm & xcr0::PKRU != 0).then(|| pkru_at(va, compact, rfbm));
    cpu.probe(va, end as u64, Access::Write)?;
    if let Some(at) = pkru {
        cpu.probe(at, 8, Access::Write)?;
        cpu.write(at, W64, cpu.sys.pkru.into())?;
    }
    let old = u64::from_le_bytes(cpu.read_array(va.wrapping_add(LEGACY as u64))?);
    let kept = if compact { 0 } else { old & !rfbm };
    let mut area = [0; AREA];
    put_x87(&mut area, &cpu.x87, rex_w);
    put_mxcsr(&mut area, cpu);
    put_vectors(&mut area, XMM, cpu, 0);
    put_vectors(&mut area, YMM_HIGH, cpu, 1);
    put(&mut area, LEGACY, &(kept | rfbm).to_le_bytes());
    put(&mut area, LEGACY + 8, &(rfbm | COMPACT).to_le_bytes());
    let mxcsr = if compact { xcr0::SSE } else { xcr0::AVX_SSE };
    // Which bytes each component writes.
    let parts = [
        (rfbm & xcr0::X87 != 0, 0..24),
        (rfbm & mxcsr != 0, 24..ST),
        (rfbm & xcr0::X87 != 0, ST..XMM),
        (rfbm & xcr0::SSE != 0, XMM..XMM + vectors),
        (true, LEGACY..LEGACY + if compact { 16 } else { 8 }),
        (avx, YMM_HIGH..YMM_HIGH + vectors),
    ];
    for (_, bytes) in parts.into_iter().filter(|p| p.0) {
        cpu.write_array(va.wrapping_add(bytes.start as u64), &area[bytes])?;
    }
    Ok(())
}

/// XRSTOR (XRSTOR64 if `rex_w`) of the components in `mask` (EDX:EAX) from linear address `va`, in
/// either format (SDM Vol. 1, 13.8).
///
/// # Errors
/// #UD, #NM, #GP(0) for alignment, a bad header or reserved bits of MXCSR; #PF.
pub fn xrstor(cpu: &mut Cpu, va: u64, mask: u64, rex_w: bool) -> Guest<()> {
    check(cpu, va, true)?;
    let rfbm = cpu.sys.xcr0 & mask;
    let mut area = [0; AREA];
    let (legacy, rest) = area.split_at_mut(LEGACY + 64);
    legacy.copy_from_slice(&cpu.read_array::<{ LEGACY + 64 }>(va)?);
    let (present, comp) = (get_u64(legacy, LEGACY), get_u64(legacy, LEGACY + 8));
    let zeros = |from: usize, to: usize| legacy[LEGACY + from..LEGACY + to].iter().all(|&b| b == 0);
    let compact = comp & COMPACT != 0 && Features::XSAVEC.in_cpu(cpu);
    let valid = if compact {
        comp & !(cpu.sys.xcr0 | COMPACT) == 0 && present & !comp == 0 && zeros(16, 64)
    } else {
        present & !cpu.sys.xcr0 == 0 && zeros(8, 24)
    };
    if !valid {
        return Err(Fault::GP0);
    }
    if rfbm & present & xcr0::AVX != 0 {
        rest.copy_from_slice(&cpu.read_array::<256>(va.wrapping_add(YMM_HIGH as u64))?);
    }
    let pkru = match rfbm & present & xcr0::PKRU {
        0 => 0,
        _ => cpu.read(pkru_at(va, compact, comp), W64)? as u32,
    };
    let from = |bit: u64| (present & bit != 0).then_some(&area[..]);
    if compact && rfbm & !present & xcr0::SSE != 0 {
        set_mxcsr(cpu, MXCSR_RESET);
    } else if rfbm & if compact { xcr0::SSE } else { xcr0::AVX_SSE } != 0 {
        let mxcsr = check_mxcsr(cpu, u32::from_le_bytes(get(&area, 24)))?;
        set_mxcsr(cpu, mxcsr);
    }
    if rfbm & xcr0::X87 != 0 {
        cpu.x87 = from(xcr0::X87).map_or_else(X87::default, |a| get_x87(a, rex_w));
    }
    if rfbm & xcr0::SSE != 0 {
        get_vectors(from(xcr0::SSE), XMM, cpu, 0);
    }
    if rfbm & xcr0::AVX != 0 {
        get_vectors(from(xcr0::AVX), YMM_HIGH, cpu, 1);
    }
    if rfbm & xcr0::PKRU != 0 {
        control::set_pkru(cpu, pkru);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;
    use emu_core::width::Width::{W8, W16, W32};

    fn filled() -> Cpu {
        let mut c = testing::cpu(Level::Long);
        c.sys.cr4 |= cr4::OSXSAVE;
        c.sys.xcr0 = 3;
        c.x87 = X87 { sw: 3 << 11, ..X87::default() };
        c.x87.full = 0x81;
        c.x87.fop = 0x123;
        c.x87.fip = 0xffff_8000_1234_5678;
        c.x87.fcs = 0x10;
        for i in 0..8 {
            c.x87.st[i] = St { mant: 0x100 + i as u64, se: 0x4000 + i as u16 };
        }
        for i in 0..16 {
            c.v[i] = [i as u64, !(i as u64), 7, 9];
        }
        c
    }

    #[test]
    fn fxsave_layout() {
        let mut c = filled();
        let read = |c: &Cpu, at: u64, w| c.mem.read(0x5000 + at, w);
        fxsave(&mut c, 0x5000, true).unwrap();
        assert_eq!((read(&c, 0, W16), read(&c, 2, W16), read(&c, 4, W8)), (0x37f, 3 << 11, 0x81));
        assert_eq!((read(&c, 6, W16), read(&c, 8, W64)), (0x123, c.x87.fip));
        assert_eq!(read(&c, 24, W64), 0xffff_0000_1f80);
        assert_eq!((read(&c, 32, W64), read(&c, 40, W16)), (0x103, 0x4003), "ST0 is R3");
        assert_eq!(read(&c, 160 + 15 * 16 + 8, W64), !15);
        fxsave(&mut c, 0x5000, false).unwrap();
        assert_eq!(read(&c, 8, W64), 0x10_1234_5678);
        c.segs[1].attr = 0xc09b; // compatibility mode: XMM8 and up stay
        mode::update(&mut c);
        c.mem.write(0x5000 + 288, W64, 0x55);
        fxsave(&mut c, 0x5000, false).unwrap();
        assert_eq!(read(&c, 288, W64), 0x55);
    }

    #[test]
    fn fxrstor_is_the_inverse_and_checks_mxcsr() {
        let mut c = filled();
        fxsave(&mut c, 0x5000, true).unwrap();
        let (x87, v) = (c.x87, c.v);
        (c.x87, c.v) = (X87::default(), [[1; 4]; 24]);
        c.mem.write(0x5000 + 24, W32, 0x1_0000);
        assert_eq!(fxrstor(&mut c, 0x5000, true), Err(Fault::GP0));
        assert_eq!(c.x87, X87::default());
        c.mem.write(0x5000 + 24, W32, 0x1fc0);
        fxrstor(&mut c, 0x5000, true).unwrap();
        assert_eq!((c.x87, c.mxcsr), (X87 { fcs: 0, ..x87 }, 0x1fc0));
        assert!((0..16).all(|i| c.v[i] == [v[i][0], v[i][1], 1, 1]), "upper halves stay");
        assert_eq!(fxrstor(&mut c, 0x5008, true), Err(Fault::GP0));
        c.sys.cr0 |= cr0::TS;
        assert_eq!(fxsave(&mut c, 0x5000, true), Err(Fault::NM));
    }

    /// Components outside the mask stay in memory and in the header.
    #[test]
    fn xsave_writes_what_is_asked() {
        let mut c = filled();
        c.mem.write(0x5000 + 512, W64, 1);
        c.mem.write(0x5000, W16, 0xabcd);
        xsave(&mut c, 0x5000, 2, true, false).unwrap();
        assert_eq!((c.mem.read(0x5200, W64), c.mem.read(0x5000, W16)), (3, 0xabcd));
        assert_eq!(c.mem.read(0x5000 + 176, W64), 1);
        assert_eq!(xsave(&mut c, 0x5010, 3, true, false), Err(Fault::GP0));
        c.sys.cr4 &= !cr4::OSXSAVE;
        assert_eq!(xsave(&mut c, 0x5000, 3, true, false), Err(Fault::UD));
    }

    /// SDM Vol. 1, 13.8: header checks; components absent from XSTATE_BV are initialised.
    #[test]
    fn xrstor_checks_and_initialises() {
        let mut c = filled();
        xsave(&mut c, 0x5000, 3, true, false).unwrap();
        for (at, v) in [(0x5200, 7), (0x5208, 1), (0x5208, 1 << 63), (0x5210, 1)] {
            let old = c.mem.read(at, W64);
            c.mem.write(at, W64, v);
            assert_eq!(xrstor(&mut c, 0x5000, 3, true), Err(Fault::GP0), "{at:#x} = {v:#x}");
            c.mem.write(at, W64, old);
        }
        c.mem.write(0x5200, W64, 1);
        c.x87 = X87::default();
        xrstor(&mut c, 0x5000, 3, true).unwrap();
        assert_eq!((c.x87.full, c.v[5]), (0x81, [0, 0, 7, 9]));
        c.features |= super::super::cpuid::Features::AVX.0;
        c.sys.xcr0 = 7;
        c.v[5] = [1, 2, 3, 4];
        xsave(&mut c, 0x5000, 7, true, false).unwrap();
        c.v[5] = [0; 4];
        xrstor(&mut c, 0x5000, 4, true).unwrap();
        assert_eq!(c.v[5], [0, 0, 3, 4]);
    }

    /// SDM Vol. 1, 13.4.3, 13.8.1, 13.10: XSAVEC and its format.
    #[test]
    fn the_compacted_format() {
        let mut c = filled();
        c.features |= Features::AVX.0 | Features::XSAVEC.0;
        c.sys.xcr0 = 7;
        c.mxcsr = 0x1f00;
        xsave(&mut c, 0x5000, 6, true, true).unwrap();
        assert_eq!((c.mem.read(0x5200, W64), c.mem.read(0x5208, W64)), (6, COMPACT | 6));
        assert_eq!(c.mem.read(0x5000, W64), 0, "no x87 state");
        let (v, x87) = (c.v, c.x87);
        (c.v, c.mxcsr) = ([[1; 4]; 24], 0x1f80);
        xrstor(&mut c, 0x5000, 7, true).unwrap();
        assert_eq!((&c.v[..16], c.mxcsr), (&v[..16], 0x1f00));
        assert_eq!((c.x87 == x87, c.x87), (false, X87::default()), "x87 is initialised");
        // What is in XCOMP_BV only is initialised, MXCSR with SSE.
        c.mem.write(0x5200, W64, 4);
        xrstor(&mut c, 0x5000, 6, true).unwrap();
        assert_eq!((c.v[5], c.mxcsr), ([0, 0, 7, 9], 0x1f80));
        for (at, v) in [(0x5200, 1), (0x5208, COMPACT | 15), (0x5208, 6), (0x5218, 1)] {
            let old = c.mem.read(at, W64);
            c.mem.write(at, W64, v);
            assert_eq!(xrstor(&mut c, 0x5000, 7, true), Err(Fault::GP0), "{at:#x} = {v:#x}");
            c.mem.write(at, W64, old);
        }
    }
}
