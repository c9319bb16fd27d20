//! The worker process and the memory it shares with us.
//!
//! A batch of samples lies in shared memory. [`Control::turn`] says whose it is, and both sides
//! sleep on it (futex). The worker copies each sample's memory to its fixed place, its code into
//! the code page (through a second, writable mapping), and runs it. The number of the sample that
//! runs is shared, so that we know which one killed the worker.
//!
//! A filter lets the worker's system calls through only from code above 4 GiB: samples have none.
//! A timer of user time stops what does not end. The worker dies with the thread that made it.
#![allow(unsafe_code)]

use crate::enter;
use crate::raw::Raw;
use crate::{
    Absent, Bits, CODE, CS32, CS64, EXIT, IMAGE_LEN, Judged, MEMORY, MEMORY_LEN, Memory, Outcome,
    Sample, image,
};
use std::io::Error;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// A sample in shared memory: input, then output in the same places.
#[repr(C, align(64))]
struct Slot {
    raw: Raw,
    /// Kind of ending, vector, error code, address.
    ended: [u64; 4],
    code: [u8; IMAGE_LEN],
    memory: Memory,
}

/// Whose turn it is.
const OURS: u32 = 0;
const WORKERS: u32 = 1;

#[repr(C, align(64))]
struct Shared {
    turn: AtomicU32,
    /// The sample that runs or is next.
    next: AtomicU32,
    count: AtomicU32,
    slots: [Slot; Oracle::BATCH],
}

const PAGE: usize = 4096;
/// Milliseconds of user time between ticks; a sample that sees two is stopped.
const TICK_MS: i64 = 20;

/// A worker process that runs samples on the real CPU.
pub struct Oracle {
    shared: *mut Shared,
    pid: libc::pid_t,
    /// The batch: what the samples were, for those that kill the worker.
    given: Vec<Raw>,
}

// SAFETY: the mapping is owned by this value alone, and no thread is tied to it.
unsafe impl Send for Oracle {}

fn check(what: &'static str, ok: bool) -> Result<(), Absent> {
    if ok { Ok(()) } else { Err(Absent::System(what, Error::last_os_error())) }
}

impl Oracle {
    /// Most samples of a batch.
    pub const BATCH: usize = 256;

    /// Starts a worker.
    ///
    /// # Errors
    /// Why there can be none on this host.
    pub fn new() -> Result<Oracle, Absent> {
        if let Some(what) = enter::missing() {
            return Err(Absent::Feature(what));
        }
        // SAFETY: a new mapping anywhere.
        let shared = unsafe {
            let (prot, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            libc::mmap(ptr::null_mut(), size_of::<Shared>(), prot, flags, -1, 0)
        };
        check("shared memory", shared != libc::MAP_FAILED)?;
        let mut o = Oracle { shared: shared.cast(), pid: 0, given: Vec::new() };
        o.spawn()?;
        // The worker takes an empty batch, if it can be set up.
        o.start(&[]);
        while o.control().turn.load(SeqCst) == WORKERS {
            o.sleep();
            if let Some(signal) = o.dead() {
                let why = if signal == 0 { "fixed addresses" } else { "a signal" };
                return Err(Absent::System(why, Error::other(format!("{signal}"))));
            }
        }
        Ok(o)
    }

    fn control(&self) -> &Shared {
        // SAFETY: mapped as long as `self` lives. Slots are only touched by the side whose turn
        // it is; the rest is atomic.
        unsafe { &*self.shared }
    }

    fn spawn(&mut self) -> Result<(), Absent> {
        // SAFETY: the child runs nothing but `work`, which takes no lock and allocates nothing.
        let pid = unsafe { libc::fork() };
        check("fork", pid >= 0)?;
        if pid == 0 {
            // SAFETY: this is the worker.
            unsafe { work(self.shared) }
        }
        self.pid = pid;
        Ok(())
    }

    /// Whether the worker has died; by which signal, or 0.
    fn dead(&mut self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: asks for our own child.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) };
        if pid == 0 {
            return None;
        }
        self.pid = 0;
        Some(if libc::WIFSIGNALED(status) {
            libc::WTERMSIG(status)
        } else {
            (libc::WEXITSTATUS(status) - 100).max(0)
        })
    }

    /// Sleeps while it is the worker's turn, but not for long.
    fn sleep(&self) {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        // SAFETY: a futex word that stays mapped.
        unsafe { futex(&self.control().turn, libc::FUTEX_WAIT, WORKERS, &time) };
    }

    /// Hands a batch, of at most [`Self::BATCH`] samples, to the worker.
    ///
    /// # Panics
    /// When the batch or a sample's code is too long, or [`finish`](Self::finish) was left out.
    pub fn start(&mut self, batch: &[Sample]) {
        assert!(batch.len() <= Self::BATCH, "{} samples in a batch", batch.len());
        assert_eq!(self.control().turn.load(SeqCst), OURS, "the last batch was not collected");
        self.given.clear();
        for (i, s) in batch.iter().enumerate() {
            let cs = if s.bits == Bits::B64 { CS64 } else { CS32 };
            let raw = Raw::new(&s.state, CODE, cs);
            self.given.push(raw);
            // SAFETY: it is our turn, so nobody else touches the slots.
            let slot = unsafe { &mut (*self.shared).slots[i] };
            slot.raw = raw;
            slot.code = image(s);
            slot.memory = *s.memory;
        }
        let c = self.control();
        c.next.store(0, SeqCst);
        c.count.store(batch.len() as u32, SeqCst);
        c.turn.store(WORKERS, SeqCst);
        // SAFETY: a futex word that stays mapped.
        unsafe { futex(&c.turn, libc::FUTEX_WAKE, 1, ptr::null()) };
    }

    /// Waits for the batch and gives what became of each sample.
    ///
    /// # Panics
    /// When a worker that died cannot be replaced.
    pub fn finish(&mut self) -> Vec<Judged> {
        let mut died = Vec::new();
        while self.control().turn.load(SeqCst) == WORKERS {
            self.sleep();
            if self.control().turn.load(SeqCst) == WORKERS
                && let Some(signal) = self.dead()
            {
                died.push((self.control().next.fetch_add(1, SeqCst) as usize, signal));
                assert!(died.len() <= self.given.len(), "the worker dies before its first sample");
                self.spawn().expect("the host let a worker be made before");
            }
        }
        let slots = &self.control().slots;
        let given = self.given.iter().zip(slots).enumerate();
        let judged = given.map(|(i, (before, slot))| {
            let memory = Box::new(slot.memory);
            if let Some((_, signal)) = died.iter().find(|d| d.0 == i) {
                let outcome = Outcome::Died { signal: *signal };
                return Judged { outcome, state: before.state(), memory };
            }
            let [kind, vector, error, address] = slot.ended;
            let outcome = match kind {
                enter::DONE => Outcome::Done,
                enter::TIMEOUT => Outcome::Timeout,
                enter::SYSTEM_CALL => Outcome::SystemCall,
                _ => Outcome::Fault { vector: vector as u8, error: error as u32, address },
            };
            Judged { outcome, state: slot.raw.state(), memory }
        });
        judged.collect()
    }

    /// Runs one sample.
    ///
    /// # Panics
    /// As [`start`](Self::start) and [`finish`](Self::finish).
    pub fn run(&mut self, sample: &Sample) -> Judged {
        self.start(std::slice::from_ref(sample));
        self.finish().remove(0)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // SAFETY: our own child, which is not reaped yet, and our own mapping.
        unsafe {
            if self.pid > 0 {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, ptr::null_mut(), 0);
            }
            libc::munmap(self.shared.cast(), size_of::<Shared>());
        }
    }
}

/// The futex system call on a shared word.
///
/// # Safety
/// `time` is null or valid.
unsafe fn futex(word: &AtomicU32, op: i32, value: u32, time: *const libc::timespec) {
    // SAFETY: the word is valid; waking too early or for nothing does no harm.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, time) };
}

/// Statuses that the worker exits with when it cannot be set up.
const NO_MAPPING: i32 = 1;
const NO_SIGNALS: i32 = 2;
const NO_FILTER: i32 = 3;

/// The worker: never returns.
///
/// # Safety
/// In a child process of one thread, `shared` mapped.
unsafe fn work(shared: *mut Shared) -> ! {
    // SAFETY: the process is ours alone; nothing that was mapped before is replaced, and each
    // result is looked at.
    unsafe {
        let parent = libc::getppid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
        let Some(code) = map_fixed() else { libc::_exit(NO_MAPPING) };
        if !signals() {
            libc::_exit(NO_SIGNALS);
        }
        if !filter() {
            libc::_exit(NO_FILTER);
        }
        let s = &*shared;
        let mut number = 0;
        loop {
            while s.turn.load(SeqCst) != WORKERS {
                futex(&s.turn, libc::FUTEX_WAIT, OURS, ptr::null());
            }
            let count = s.count.load(SeqCst).min(Oracle::BATCH as u32);
            let mut i = s.next.load(SeqCst);
            while i < count {
                number += 1;
                one(&raw mut (*shared).slots[i as usize], code, number);
                i = s.next.fetch_add(1, SeqCst) + 1;
            }
            s.turn.store(OURS, SeqCst);
            futex(&s.turn, libc::FUTEX_WAKE, 1, ptr::null());
        }
    }
}

/// Runs the sample in `slot`; `code` is the writable mapping of the code page.
///
/// # Safety
/// In the worker after its set-up, at its turn.
unsafe fn one(slot: *mut Slot, code: *mut u8, number: u64) {
    // SAFETY: it is the worker's turn, so the slot is ours; the two mappings are as long as what
    // is copied; the code ends in a jump to `EXIT`, and that in one to `enter::leave`.
    unsafe {
        let slot = &mut *slot;
        let memory = MEMORY as *mut u8;
        ptr::copy_nonoverlapping(slot.memory.as_ptr(), memory, MEMORY_LEN);
        ptr::copy_nonoverlapping(slot.code.as_ptr(), code, IMAGE_LEN);
        slot.ended = enter::run(&raw mut slot.raw, number);
        ptr::copy_nonoverlapping(memory, slot.memory.as_mut_ptr(), MEMORY_LEN);
    }
}

/// Maps the memory, the page at [`EXIT`] and the code page; gives the writable mapping of the last.
///
/// # Safety
/// In the worker.
unsafe fn map_fixed() -> Option<*mut u8> {
    let (rw, rx) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
    let fixed = libc::MAP_FIXED_NOREPLACE;
    // SAFETY: fixed mappings replace nothing, and the others may be anywhere.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | fixed;
        let memory = libc::mmap(MEMORY as *mut _, MEMORY_LEN, rw, flags, -1, 0);
        let file = libc::memfd_create(c"ring3-oracle".as_ptr(), 0);
        if memory as u64 != MEMORY || file < 0 || libc::ftruncate(file, PAGE as i64) != 0 {
            return None;
        }
        let code = libc::mmap(CODE as *mut _, PAGE, rx, libc::MAP_SHARED | fixed, file, 0);
        let alias = libc::mmap(ptr::null_mut(), PAGE, rw, libc::MAP_SHARED, file, 0);
        libc::close(file);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
        let exit = libc::mmap(EXIT as *mut _, PAGE, rw, flags, -1, 0);
        if code as u64 != CODE || alias == libc::MAP_FAILED || exit as u64 != EXIT {
            return None;
        }
        // jmp [rip], and the address.
        exit.cast::<[u8; 6]>().write_unaligned([0xff, 0x25, 0, 0, 0, 0]);
        exit.byte_add(6).cast::<u64>().write_unaligned(enter::leave());
        (libc::mprotect(exit, PAGE, rx) == 0).then_some(alias.cast())
    }
}

/// Handlers for what samples raise, on a stack of their own, and the timer.
///
/// # Safety
/// In the worker.
unsafe fn signals() -> bool {
    const STACK: usize = 64 << 10;
    let caught = [
        libc::SIGSEGV,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGBUS,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGVTALRM,
    ];
    // SAFETY: plain structures, filled in; the handler never returns into Rust code that it
    // interrupted while a sample runs.
    unsafe {
        let (rw, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let stack = libc::mmap(ptr::null_mut(), STACK, rw, flags, -1, 0);
        if stack == libc::MAP_FAILED {
            return false;
        }
        let alt = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK };
        let mut ok = libc::sigaltstack(&alt, ptr::null_mut()) == 0;
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::sigprocmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
        for signal in caught {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = enter::on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigfillset(&mut action.sa_mask);
            ok &= libc::sigaction(signal, &action, ptr::null_mut()) == 0;
        }
        // Nobody types at the worker.
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        let tick = libc::timeval { tv_sec: 0, tv_usec: TICK_MS * 1000 };
        let timer = libc::itimerval { it_interval: tick, it_value: tick };
        ok && libc::setitimer(libc::ITIMER_VIRTUAL, &timer, ptr::null_mut()) == 0
    }
}

/// System calls from code below 4 GiB, and those of other ABIs, become SIGSYS.
///
/// # Safety
/// In the worker.
unsafe fn filter() -> bool {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Offsets in `struct seccomp_data`.
    const ARCH: u32 = 4;
    const IP_HIGH: u32 = 12;
    const X86_64: u32 = 0xc000_003e;
    let row = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        row(LOAD, 0, 0, ARCH),
        row(EQUAL, 0, 3, X86_64),
        row(LOAD, 0, 0, IP_HIGH),
        row(EQUAL, 1, 0, 0),
        row(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        row(RETURN, 0, 0, libc::SECCOMP_RET_TRAP),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid while the call lasts.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    fn sample(bits: Bits, code: &[u8]) -> Sample {
        let mut state = State { rflags: 0x202, mxcsr: 0x1f80, ..State::default() };
        state.x87.cw = 0x37f;
        for (i, r) in state.gpr.iter_mut().enumerate() {
            *r = 0x0101_0101 * i as u64;
        }
        state.gpr[4] = MEMORY + 0x1000;
        state.ymm = [[1, 2, 3, 4]; 16];
        Sample { code: code.to_vec(), bits, state, memory: Box::new([0x55; MEMORY_LEN]) }
    }

    #[test]
    fn registers_memory_and_flags() {
        let mut o = Oracle::new().expect("an oracle");
        // add rax, rbx; push rax; paddq xmm0, xmm1; fld1; stc
        let code = [0x48, 1, 0xd8, 0x50, 0x66, 0x0f, 0xd4, 0xc1, 0xd9, 0xe8, 0xf9];
        let s = sample(Bits::B64, &code);
        let j = o.run(&s);
        assert_eq!(j.outcome, Outcome::Done);
        let mut want = s.state;
        want.gpr[0] = s.state.gpr[0] + s.state.gpr[3];
        want.gpr[4] -= 8;
        want.ymm[0][..2].copy_from_slice(&[2, 4]);
        assert_eq!((j.state.gpr, j.state.ymm), (want.gpr, want.ymm));
        assert_eq!((j.state.rflags & 0xcd5, j.state.selectors), (1 | 4, [0x2b; 4]));
        assert_eq!((j.state.x87.st[0], j.state.x87.full), ((1 << 63, 0x3fff), 0x80));
        let mut memory = s.memory;
        memory[0xff8..0x1000].copy_from_slice(&want.gpr[0].to_le_bytes());
        assert!(memory == j.memory);
    }

    #[test]
    fn code_of_32_bits() {
        let mut o = Oracle::new().expect("an oracle");
        // inc eax (REX in 64-bit code); push ecx
        let s = sample(Bits::B32, &[0x40, 0x51]);
        let j = o.run(&s);
        assert_eq!(
            (j.outcome, j.state.gpr[0], j.state.gpr[4] as u32),
            (Outcome::Done, 1, 0x1000_0ffc)
        );
        assert_eq!(j.memory[0xffc..0x1000], 0x0101_0101u32.to_le_bytes());
    }

    #[test]
    fn faults() {
        let mut o = Oracle::new().expect("an oracle");
        let fault = |vector, error, address| Outcome::Fault { vector, error, address };
        #[rustfmt::skip]
        let rows: &[(Bits, &[u8], Outcome)] = &[
            (Bits::B64, &[0x90, 0x0f, 0x0b],             fault(6, 0, 0)),
            (Bits::B64, &[0x90, 0xf4],                   fault(13, 0, 0)),
            (Bits::B64, &[0x90, 0xa2, 0, 0x10, 0, 0, 0, 0, 0, 0], fault(14, 6, 0x1000)),
            (Bits::B64, &[0x90, 0xa2, 0, 0, 0, 0x12, 0, 0, 0, 0], fault(14, 7, CODE)),
            (Bits::B64, &[0x90, 0xf7, 0xf0],             fault(0, 0, 0)),
            (Bits::B32, &[0x90, 0x0f, 0x0b],             fault(6, 0, 0)),
            (Bits::B32, &[0x90, 0xa2, 0, 0, 0, 0x20],    fault(14, 6, 0x2000_0000)),
            (Bits::B64, &[0x90, 0xeb, 0xfe],             Outcome::Timeout),
            (Bits::B32, &[0x90, 0xeb, 0xfe],             Outcome::Timeout),
            (Bits::B64, &[0x0f, 0x05],                   Outcome::SystemCall),
            (Bits::B32, &[0xcd, 0x80],                   Outcome::SystemCall),
        ];
        let batch: Vec<Sample> = rows.iter().map(|r| sample(r.0, r.1)).collect();
        o.start(&batch);
        for (row, j) in rows.iter().zip(o.finish()) {
            let seen = match j.outcome {
                Outcome::Fault { vector, error, address } if vector == 14 => {
                    fault(vector, error, address)
                }
                Outcome::Fault { vector, error, .. } => fault(vector, error, 0),
                o => o,
            };
            assert_eq!(seen, row.2, "{:x?}", row.1);
            if matches!(seen, Outcome::Fault { .. } | Outcome::Timeout) {
                assert_eq!(j.state.rip, CODE + 1, "{:x?}", row.1);
            }
            assert_eq!(j.state.ymm, batch[0].state.ymm, "{:x?}", row.1);
        }
        assert_eq!(o.run(&sample(Bits::B64, &[0x90])).outcome, Outcome::Done);
    }

    /// The batch goes on in a new worker.
    #[test]
    fn a_worker_that_dies_is_replaced() {
        let mut o = Oracle::new().expect("an oracle");
        // ud2 where the signal's handler cannot know of it: after the worker was killed.
        let mut batch = vec![sample(Bits::B64, &[0x90]); 3];
        batch[1].code = vec![0xeb, 0xfe];
        o.start(&batch);
        // SAFETY: our own child.
        unsafe { libc::kill(o.pid, libc::SIGKILL) };
        let ends: Vec<Outcome> = o.finish().into_iter().map(|j| j.outcome).collect();
        assert_eq!(
            ends.iter().filter(|e| **e == Outcome::Died { signal: 9 }).count(),
            1,
            "{ends:?}"
        );
        assert_eq!(ends[2], Outcome::Done);
    }
}
