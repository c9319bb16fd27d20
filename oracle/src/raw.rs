//! Registers as the oracle gives them, and the layout in which they go to and from the CPU: words
//! for the general registers, an XSAVE area in standard format for the rest (SDM Vol. 1, 13.4).

/// x87 state (SDM Vol. 1, 8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct X87 {
    /// Control word.
    pub cw: u16,
    /// Status word, with TOP in bits 13:11.
    pub sw: u16,
    /// Which physical registers are not empty, bit i for Ri (FXSAVE's abridged tag word).
    pub full: u8,
    /// ST(0) to ST(7): significand, then sign and exponent.
    pub st: [(u64, u16); 8],
}

/// All registers that user mode has, up to AVX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8…R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
    /// Selectors of DS, ES, FS and GS.
    pub selectors: [u16; 4],
    /// YMM0–15 as 64-bit words, lowest first.
    pub ymm: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 state; MM registers are significands in it.
    pub x87: X87,
}

/// Bytes of an XSAVE area with x87, SSE and AVX state.
pub(crate) const XSAVE_LEN: usize = 832;
const X87_SSE_AVX: u64 = 7;

/// Registers in the worker's layout. `enter` knows the offsets.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Raw {
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub cs: u64,
    pub selectors: [u16; 4],
    pub unused: [u64; 2],
    pub xsave: [u8; XSAVE_LEN],
}

fn put<const N: usize>(area: &mut [u8; XSAVE_LEN], at: usize, v: [u8; N]) {
    area[at..at + N].copy_from_slice(&v);
}

fn get<const N: usize>(area: &[u8; XSAVE_LEN], at: usize) -> [u8; N] {
    let mut v = [0; N];
    v.copy_from_slice(&area[at..at + N]);
    v
}

impl Raw {
    /// The layout of `s`, to start at `rip` in code segment `cs`.
    pub fn new(s: &State, rip: u64, cs: u16) -> Raw {
        let mut x = [0; XSAVE_LEN];
        put(&mut x, 0, s.x87.cw.to_le_bytes());
        put(&mut x, 2, s.x87.sw.to_le_bytes());
        x[4] = s.x87.full;
        // Reserved bits of MXCSR would make XRSTOR raise #GP.
        put(&mut x, 24, (s.mxcsr & 0xffff).to_le_bytes());
        for (i, (mant, se)) in s.x87.st.iter().enumerate() {
            put(&mut x, 32 + 16 * i, mant.to_le_bytes());
            put(&mut x, 40 + 16 * i, se.to_le_bytes());
        }
        for (i, v) in s.ymm.iter().enumerate() {
            for k in 0..2 {
                put(&mut x, 160 + 16 * i + 8 * k, v[k].to_le_bytes());
                put(&mut x, 576 + 16 * i + 8 * k, v[2 + k].to_le_bytes());
            }
        }
        put(&mut x, 512, X87_SSE_AVX.to_le_bytes());
        Raw {
            gpr: s.gpr,
            rip,
            rflags: s.rflags | 2,
            fs_base: s.fs_base,
            gs_base: s.gs_base,
            cs: cs.into(),
            selectors: [0; 4],
            unused: [0; 2],
            xsave: x,
        }
    }

    /// The registers in it. A component that XSTATE_BV says to be in its initial state is so,
    /// whatever its bytes are.
    pub fn state(&self) -> State {
        let x = &self.xsave;
        let present = u64::from_le_bytes(get(x, 512));
        let mut s = State {
            gpr: self.gpr,
            rip: self.rip,
            rflags: self.rflags,
            fs_base: self.fs_base,
            gs_base: self.gs_base,
            selectors: self.selectors,
            mxcsr: u32::from_le_bytes(get(x, 24)),
            x87: X87 { cw: 0x37f, ..X87::default() },
            ..State::default()
        };
        if present & 1 != 0 {
            s.x87.cw = u16::from_le_bytes(get(x, 0));
            s.x87.sw = u16::from_le_bytes(get(x, 2));
            s.x87.full = x[4];
            for (i, st) in s.x87.st.iter_mut().enumerate() {
                let at = 32 + 16 * i;
                *st = (u64::from_le_bytes(get(x, at)), u16::from_le_bytes(get(x, at + 8)));
            }
        }
        for (i, v) in s.ymm.iter_mut().enumerate() {
            for k in 0..2 {
                if present & 2 != 0 {
                    v[k] = u64::from_le_bytes(get(x, 160 + 16 * i + 8 * k));
                }
                if present & 4 != 0 {
                    v[2 + k] = u64::from_le_bytes(get(x, 576 + 16 * i + 8 * k));
                }
            }
        }
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// The offsets that `enter` is written with.
    #[test]
    fn layout() {
        assert_eq!(offset_of!(Raw, rip), 128);
        assert_eq!(offset_of!(Raw, rflags), 136);
        assert_eq!(offset_of!(Raw, fs_base), 144);
        assert_eq!(offset_of!(Raw, gs_base), 152);
        assert_eq!(offset_of!(Raw, cs), 160);
        assert_eq!(offset_of!(Raw, selectors), 168);
        assert_eq!(offset_of!(Raw, xsave), 192);
    }

    #[test]
    fn there_and_back() {
        let mut s = State { rflags: 2, mxcsr: 0x1f80, ..State::default() };
        for i in 0..16 {
            s.gpr[i] = 0x1111 * i as u64;
            s.ymm[i] = [1, 2, 3, 4].map(|k| k << 32 | i as u64);
        }
        s.x87 = X87 { cw: 0x27f, sw: 0x3800, full: 0x81, st: [(7 << 61, 0x3fff); 8] };
        s.rip = 5;
        assert_eq!(Raw::new(&s, 5, 0x33).state(), s);
        let mut raw = Raw::new(&s, 5, 0x33);
        raw.xsave[512] = 0;
        assert_eq!(raw.state().x87, X87 { cw: 0x37f, ..X87::default() });
        assert_eq!(raw.state().ymm, [[0; 4]; 16]);
    }
}
