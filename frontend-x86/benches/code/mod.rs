//! Blocks of 64-bit code as compilers make it, for measurements.

use emu_core::cpu::mode;

/// The mode that it is for.
pub const MODE: u32 = mode::CODE64 | mode::LONG | mode::FLAT | mode::SSE | mode::AVX;

/// Name, bytes, number of instructions.
#[rustfmt::skip]
pub const BLOCKS: &[(&str, &[u8], u64)] = &[
    ("integer", &[
        0x48, 0x8b, 0x07,                   // mov rax, [rdi]
        0x48, 0x01, 0xc3,                   // add rbx, rax
        0x48, 0x83, 0xc7, 0x08,             // add rdi, 8
        0x89, 0x46, 0x10,                   // mov [rsi + 16], eax
        0x0f, 0xb6, 0x4c, 0x0f, 0x01,       // movzx ecx, byte [rdi + rcx + 1]
        0x48, 0x8d, 0x54, 0x91, 0x04,       // lea rdx, [rcx + rdx*4 + 4]
        0xc1, 0xe8, 0x05,                   // shr eax, 5
        0x31, 0xc8,                         // xor eax, ecx
        0x69, 0xc0, 0x15, 0x7c, 0x4a, 0x7f, // imul eax, eax, 7f4a7c15h
        0x01, 0x46, 0x08,                   // add [rsi + 8], eax
        0x48, 0x39, 0xd7,                   // cmp rdi, rdx
        0x72, 0xd5,                         // jb, to the first
    ], 12),
    ("call", &[
        0x55,                               // push rbp
        0x48, 0x89, 0xe5,                   // mov rbp, rsp
        0x41, 0x54,                         // push r12
        0x48, 0x83, 0xec, 0x18,             // sub rsp, 24
        0x48, 0x89, 0x7d, 0xe8,             // mov [rbp - 24], rdi
        0x48, 0x85, 0xf6,                   // test rsi, rsi
        0x0f, 0x95, 0xc0,                   // setne al
        0x48, 0x0f, 0x44, 0xfe,             // cmove rdi, rsi
        0xff, 0x17,                         // call [rdi]
    ], 9),
    ("vector", &[
        0x0f, 0x10, 0x04, 0x0f,             // movups xmm0, [rdi + rcx]
        0x0f, 0x59, 0xc1,                   // mulps xmm0, xmm1
        0x0f, 0x58, 0x04, 0x0e,             // addps xmm0, [rsi + rcx], aligned
        0x0f, 0x11, 0x04, 0x0f,             // movups [rdi + rcx], xmm0
        0xf2, 0x0f, 0x10, 0x12,             // movsd xmm2, [rdx]
        0xf2, 0x0f, 0x58, 0xd3,             // addsd xmm2, xmm3
        0x66, 0x0f, 0xef, 0xe4,             // pxor xmm4, xmm4
        0xc5, 0xfd, 0xfe, 0xe9,             // vpaddd ymm5, ymm0, ymm1
        0x48, 0x83, 0xc1, 0x10,             // add rcx, 16
        0x75, 0xdb,                         // jne, to the first
    ], 10),
];
