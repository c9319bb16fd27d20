//! Breakpoints: linear addresses and ports that one CPU looks out for, and the debug traps that
//! wait to be delivered. What arms them (debug registers) and what delivers them is the
//! frontend's.
//!
//! Nothing is looked at while nothing is armed. While something is, the run loop takes one
//! instruction at a time, and a page with a data breakpoint gets no data tags in level 1 of the
//! TLB: every access to it takes the slow path, which asks [`Watch::access`].
//!
//! Source: SDM Vol. 3, 17.2 (debug registers), 17.3 (debug exceptions), 6.8.3 (MOV SS).

/// DR6.BS: single step.
pub const BS: u64 = 1 << 14;
/// DR6.BT: task switch.
pub const BT: u64 = 1 << 15;

/// What a breakpoint waits for: the R/W field of DR7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The instruction at the address.
    Execute,
    /// Data writes.
    Write,
    /// Port input or output.
    Port,
    /// Data reads and writes.
    Access,
}

/// An armed breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// First linear address or port.
    pub first: u64,
    /// Last one.
    pub last: u64,
    /// What it waits for.
    pub kind: Kind,
}

/// The breakpoints of one CPU; see the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    points: [Option<Point>; 4],
    /// Some breakpoint is armed.
    pub armed: bool,
    /// DR6 bits of what the instruction in progress has hit; then those of the #DB delivered.
    pub hits: u64,
    /// DR6 bits of the traps to deliver before the next instruction.
    pub pending: u64,
    /// MOV or POP to SS has just run: no debug exception before the next instruction is done.
    pub shadow: bool,
    /// The instruction in progress entered a handler that TF is not meant for (INT n, SYSCALL).
    pub entered: bool,
}

impl Watch {
    /// Replaces the breakpoints; number `i` is bit `i` of the hits.
    pub fn arm(&mut self, points: [Option<Point>; 4]) {
        self.points = points;
        self.armed = points.iter().any(Option::is_some);
    }

    /// Bits of the points that `wanted` is true of.
    fn bits(&self, wanted: impl Fn(&Point) -> bool) -> u64 {
        let hit = |(i, p): (usize, &Option<Point>)| u64::from(p.is_some_and(|p| wanted(&p))) << i;
        self.points.iter().enumerate().map(hit).sum()
    }

    /// Which breakpoints the instruction at linear address `va` hits.
    pub fn execute(&self, va: u64) -> u64 {
        self.bits(|p| p.kind == Kind::Execute && p.first == va)
    }

    /// Whether the page of `va` has a data breakpoint.
    pub fn page(&self, va: u64) -> bool {
        let data = |p: &Point| matches!(p.kind, Kind::Write | Kind::Access);
        self.armed && self.bits(|p| data(p) && (p.first ^ va) >> 12 == 0) != 0
    }

    /// Notes an access to `n` bytes at linear address `va`.
    pub fn access(&mut self, va: u64, n: u64, write: bool) {
        let last = va.wrapping_add(n - 1);
        self.hits |= self.bits(|p| {
            let kind = p.kind == Kind::Access || write && p.kind == Kind::Write;
            kind && va <= p.last && last >= p.first
        });
    }

    /// Notes an access to `n` ports from `port` on.
    pub fn port(&mut self, port: u16, n: u64) {
        let (first, last) = (u64::from(port), u64::from(port) + n - 1);
        self.hits |= self.bits(|p| p.kind == Kind::Port && first <= p.last && last >= p.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_by_the_byte() {
        let point = |first, n, kind| Some(Point { first, last: first + n - 1, kind });
        let mut w = Watch::default();
        assert!(!w.page(0x1000));
        w.arm([
            point(0x1000, 1, Kind::Execute),
            point(0x2004, 4, Kind::Write),
            point(0x60, 2, Kind::Port),
            point(0x2008, 8, Kind::Access),
        ]);
        assert_eq!((w.execute(0x1000), w.execute(0x1001), w.execute(0x2004)), (1, 0, 0));
        assert_eq!((w.page(0x2fff), w.page(0x1000), w.page(0x60)), (true, false, false));
        #[rustfmt::skip]
        let rows = [
            (0x2000, 4, true, 0), (0x2001, 4, true, 2), (0x2007, 1, true, 2), (0x2007, 1, false, 0),
            (0x2004, 8, true, 10), (0x200f, 1, false, 8), (0x2010, 8, true, 0),
            (0x1000, 1, true, 0),
        ];
        for (va, n, write, hits) in rows {
            w.hits = 0;
            w.access(va, n, write);
            assert_eq!(w.hits, hits, "{n} at {va:#x}");
        }
        for (port, n, hits) in [(0x5e, 2, 0), (0x5e, 4, 4), (0x61, 1, 4), (0x62, 4, 0)] {
            w.hits = 0;
            w.port(port, n);
            assert_eq!(w.hits, hits, "{n} ports at {port:#x}");
        }
    }
}
