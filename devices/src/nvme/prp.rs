//! Where a command's data is: physical region pages.
//!
//! PRP 1 is the first part, up to the end of its page. PRP 2 is the second page, or a list of
//! pages; the last entry of a list's page points to the next, if there is more. Lists that only
//! point to lists end in an error.
//!
//! Source: NVM Express 1.3, 4.3.

use super::status;
use emu_core::mem::Memory;

/// Parts of guest memory: address, bytes.
pub(super) type Parts = Vec<(u64, usize)>;

/// The parts of `len` bytes, in pages of `page` bytes.
pub(super) fn parts(memory: &Memory, page: u64, prp: [u64; 2], len: usize) -> Result<Parts, u16> {
    let in_page = |at: u64| (page - (at & (page - 1))) as usize;
    if prp[0] & 3 != 0 {
        return Err(status::PRP_OFFSET);
    }
    let first = len.min(in_page(prp[0]));
    let (mut parts, mut left) = (vec![(prp[0], first)], len - first);
    let take = |parts: &mut Parts, at: u64, left: &mut usize| {
        if at & (page - 1) != 0 {
            return Err(status::PRP_OFFSET);
        }
        let n = (*left).min(page as usize);
        parts.push((at, n));
        *left -= n;
        Ok(())
    };
    if left > 0 && left <= page as usize {
        take(&mut parts, prp[1], &mut left)?;
    }
    let (mut list, mut lists) = (prp[1], 0);
    while left > 0 {
        if list & 7 != 0 || lists > len / page as usize {
            return Err(status::PRP_OFFSET);
        }
        lists += 1;
        let mut bytes = vec![0; in_page(list)];
        memory.read(list, &mut bytes);
        let entries = bytes.chunks_exact(8);
        let last = entries.len() - 1;
        for (n, entry) in entries.enumerate() {
            let at = entry.iter().rev().fold(0, |at, &b| at << 8 | u64::from(b));
            if n == last && left > page as usize {
                list = at;
            } else if left > 0 {
                take(&mut parts, at, &mut left)?;
            }
        }
    }
    Ok(parts)
}

/// Writes `data` to the parts.
pub(super) fn scatter(memory: &Memory, parts: &Parts, mut data: &[u8]) {
    for &(at, n) in parts {
        let (now, rest) = data.split_at(n.min(data.len()));
        memory.write(at, now);
        data = rest;
    }
}

/// Reads the parts.
pub(super) fn gather(memory: &Memory, parts: &Parts) -> Vec<u8> {
    let mut data = vec![0; parts.iter().map(|p| p.1).sum()];
    let mut rest = data.as_mut_slice();
    for &(at, n) in parts {
        let (now, after) = rest.split_at_mut(n);
        memory.read(at, now);
        rest = after;
    }
    data
}
