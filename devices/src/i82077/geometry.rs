//! Formats of floppy disks, by the size of the image.
//!
//! Source: Intel 82077AA datasheet (290166), 2.1.6 (data rates); the formats of DOS.

use crate::disk::SECTOR;

/// A disk format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) tracks: u8,
    pub(super) sectors: u8,
    /// Data rates (bit n: value n of CCR) at which it can be read.
    pub(super) rates: u8,
}

/// By size. 360 KB spins faster in a drive for 1.2 MB.
const GEOMETRIES: [Geometry; 5] = [
    Geometry { tracks: 40, sectors: 9, rates: 0b0110 },
    Geometry { tracks: 80, sectors: 9, rates: 0b0100 },
    Geometry { tracks: 80, sectors: 15, rates: 0b0001 },
    Geometry { tracks: 80, sectors: 18, rates: 0b0001 },
    Geometry { tracks: 80, sectors: 36, rates: 0b1000 },
];
/// What is of no known size is taken for at least this one.
const USUAL: usize = 3;

impl Geometry {
    fn len(self) -> u64 {
        2 * u64::from(self.tracks) * u64::from(self.sectors) * SECTOR
    }

    pub(super) fn of(len: u64) -> Option<Geometry> {
        let exact = GEOMETRIES.iter().find(|g| g.len() == len);
        let larger = GEOMETRIES[USUAL..].iter().find(|g| len <= g.len());
        exact.or(larger).or(GEOMETRIES.last()).copied().filter(|_| len > 0)
    }
}
