//! Which feature needs which: one table, for the command line and for the models' test.
//!
//! A row says what the manuals say: that an instruction set works on another's registers, or that
//! a bit governs what another feature brings. What only operating systems expect to come together
//! (64-bit kernels and SSE2) is not in it: they can be shown a CPU without.
//!
//! Source: SDM Vol. 1, 10–14 (detection of each instruction set); Vol. 3, 4.1 (paging modes).

use crate::sys::cpuid::Features as F;

/// Feature, and the features that it needs at first hand.
pub static NEEDS: &[(F, &[F])] = &[
    (F::MMX, &[F::FPU]),
    (F::FXSR, &[F::FPU]),
    (F::SSE, &[F::FXSR, F::MMX]),
    (F::SSE2, &[F::SSE]),
    (F::SSE3, &[F::SSE2]),
    (F::SSSE3, &[F::SSE3]),
    (F::SSE4_1, &[F::SSSE3]),
    (F::SSE4_2, &[F::SSE4_1]),
    (F::AES, &[F::SSE2]),
    (F::PCLMULQDQ, &[F::SSE2]),
    (F::SHA, &[F::SSSE3]),
    (F::XSAVE, &[F::FXSR]),
    (F::XSAVEOPT, &[F::XSAVE]),
    (F::XSAVEC, &[F::XSAVE]),
    (F::XGETBV1, &[F::XSAVE]),
    (F::AVX, &[F::XSAVE, F::SSE4_2]),
    (F::AVX2, &[F::AVX]),
    (F::FMA, &[F::AVX]),
    (F::F16C, &[F::AVX]),
    (F::VAES, &[F::AVX, F::AES]),
    (F::VPCLMULQDQ, &[F::AVX, F::PCLMULQDQ]),
    (F::PSE36, &[F::PSE]),
    (F::NX, &[F::PAE, F::MSR]),
    (F::LM, &[F::PAE, F::MSR, F::SYSCALL]),
    (F::SYSCALL, &[F::MSR]),
    (F::CX16, &[F::CX8, F::LM]),
    (F::LAHF, &[F::LM]),
    (F::PDPE1GB, &[F::LM]),
    (F::PCID, &[F::LM]),
    (F::LA57, &[F::LM]),
    (F::PKU, &[F::LM, F::XSAVE]),
    (F::FSGSBASE, &[F::LM]),
    (F::SEP, &[F::MSR]),
    (F::MTRR, &[F::MSR]),
    (F::PAT, &[F::MSR]),
    (F::MCA, &[F::MSR, F::MCE]),
    (F::ARCH_CAPS, &[F::MSR]),
    (F::SPEC_CTRL, &[F::MSR]),
    (F::BHI_CTRL, &[F::SPEC_CTRL]),
    (F::X2APIC, &[F::APIC, F::MSR]),
    (F::TSC_DEADLINE, &[F::APIC, F::MSR, F::TSC]),
    (F::ARAT, &[F::APIC]),
    (F::RDTSCP, &[F::TSC, F::MSR]),
    (F::INVARIANT_TSC, &[F::TSC]),
];

/// `f` and all that it needs.
#[must_use]
pub fn with_needs(mut f: F) -> F {
    loop {
        let rows = NEEDS.iter().filter(|(feature, _)| f.0 & feature.0 != 0);
        let all = rows.fold(f, |all, (_, needs)| F(all.0 | F::of(needs).0));
        if all == f {
            return f;
        }
        f = all;
    }
}

/// `f` and all that needs it.
#[must_use]
pub fn with_dependents(mut f: F) -> F {
    loop {
        let rows = NEEDS.iter().filter(|(_, needs)| f.0 & F::of(needs).0 != 0);
        let all = rows.fold(f, |all, (feature, _)| F(all.0 | feature.0));
        if all == f {
            return f;
        }
        f = all;
    }
}
