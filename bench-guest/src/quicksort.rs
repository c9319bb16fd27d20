//! Quicksort of random numbers: unpredictable branches, and stores that follow them.

use super::{Random, fold};

/// Sorts by Hoare's partition around the middle element; short runs by insertion.
fn sort(mut data: &mut [u32]) {
    while data.len() > 12 {
        let pivot = data[data.len() / 2];
        let (mut low, mut high) = (0, data.len() - 1);
        loop {
            while data[low] < pivot {
                low += 1;
            }
            while data[high] > pivot {
                high -= 1;
            }
            if low >= high {
                break;
            }
            data.swap(low, high);
            low += 1;
            high -= 1;
        }
        let (left, right) = data.split_at_mut(low);
        sort(left);
        data = right;
    }
    for i in 1..data.len() {
        let value = data[i];
        let mut at = i;
        while at > 0 && data[at - 1] > value {
            data[at] = data[at - 1];
            at -= 1;
        }
        data[at] = value;
    }
}

/// Sorts 4,096 numbers per iteration.
pub fn run(iterations: u64) -> u64 {
    let mut data = vec![0; 4_096];
    let mut random = Random(3);
    (0..iterations).fold(0, |sum, i| {
        data.fill_with(|| random.next());
        sort(&mut data);
        fold(sum, u64::from(data[i as usize % 4_096]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sorts() {
        let mut random = Random(5);
        for length in 0..600 {
            let modulus = length as u32 / 3 + 1;
            let mut data: Vec<u32> = (0..length).map(|_| random.next() % modulus).collect();
            let mut expected = data.clone();
            expected.sort_unstable();
            sort(&mut data);
            assert_eq!(data, expected);
        }
    }
}
