//! A mix like that of embedded benchmarks: linked lists, small matrices, a state machine over text,
//! and a CRC over all the results.

use super::{Random, fold};
use std::hint::black_box;

/// CRC-32 (IEEE 802.3, reflected) of one more byte, bit by bit.
fn crc(mut crc: u32, byte: u8) -> u32 {
    crc ^= u32::from(byte);
    for _ in 0..8 {
        let carry = crc & 1;
        crc >>= 1;
        if carry != 0 {
            crc ^= 0xedb8_8320;
        }
    }
    crc
}

fn crc_word(sum: u32, word: u32) -> u32 {
    word.to_le_bytes().into_iter().fold(sum, crc)
}

/// A node of a singly linked list; links are indices into an arena, [`END`] ends the list.
#[derive(Clone, Copy)]
struct Node {
    value: u32,
    next: u16,
}

const END: u16 = u16::MAX;

/// Merges two sorted lists.
fn merge(nodes: &mut [Node], mut a: u16, mut b: u16) -> u16 {
    let (mut head, mut tail) = (END, END);
    while a != END || b != END {
        let from_a =
            b == END || (a != END && nodes[usize::from(a)].value <= nodes[usize::from(b)].value);
        let least = if from_a { &mut a } else { &mut b };
        let taken = *least;
        *least = nodes[usize::from(taken)].next;
        match tail {
            END => head = taken,
            _ => nodes[usize::from(tail)].next = taken,
        }
        tail = taken;
    }
    head
}

/// Sorts the first `length` nodes of the list at `head` and cuts off the others: merge sort.
fn sort(nodes: &mut [Node], head: u16, length: usize) -> u16 {
    if length == 1 {
        nodes[usize::from(head)].next = END;
        return head;
    }
    let mut second = head;
    for _ in 0..length / 2 {
        second = nodes[usize::from(second)].next;
    }
    let a = sort(nodes, head, length / 2);
    let b = sort(nodes, second, length - length / 2);
    merge(nodes, a, b)
}

fn reverse(nodes: &mut [Node], mut head: u16) -> u16 {
    let mut done = END;
    while head != END {
        let next = nodes[usize::from(head)].next;
        nodes[usize::from(head)].next = done;
        (done, head) = (head, next);
    }
    done
}

fn walk(nodes: &[Node], head: u16) -> impl Iterator<Item = u32> {
    std::iter::successors(nodes.get(usize::from(head)), |node| nodes.get(usize::from(node.next)))
        .map(|node| node.value)
}

const SIDE: usize = 12;
type Matrix = [[i32; SIDE]; SIDE];

fn multiply(a: &Matrix, b: &Matrix) -> Matrix {
    let mut product = [[0i32; SIDE]; SIDE];
    for (row, out) in a.iter().zip(&mut product) {
        for (column, cell) in out.iter_mut().enumerate() {
            for (k, &factor) in row.iter().enumerate() {
                *cell = cell.wrapping_add(factor.wrapping_mul(b[k][column]));
            }
        }
    }
    product
}

/// What a word of text is, as far as it was read.
#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Start,
    Sign,
    Integer,
    Point,
    Exponent,
    ExponentSign,
    Scientific,
    Invalid,
}

fn step(state: State, byte: u8) -> State {
    use State::*;
    match (state, byte) {
        (Start, b'+' | b'-') => Sign,
        (Start | Sign | Integer, b'0'..=b'9') => Integer,
        (Start | Sign | Integer, b'.') | (Point, b'0'..=b'9') => Point,
        (Integer | Point, b'e' | b'E') => Exponent,
        (Exponent, b'+' | b'-') => ExponentSign,
        (Exponent | ExponentSign | Scientific, b'0'..=b'9') => Scientific,
        _ => Invalid,
    }
}

const TEXT: &[u8] =
    b"5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,\
      +0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^,";

/// How often each state was the last of a word.
fn classify(text: &[u8]) -> [u32; 8] {
    let mut counts = [0; 8];
    let mut state = State::Start;
    for &byte in text {
        if byte == b',' {
            counts[state as usize & 7] += 1;
            state = State::Start;
        } else {
            state = step(state, byte);
        }
    }
    counts
}

/// One of each per iteration: a list of 200 nodes sorted, reversed and read, a product of matrices,
/// a text classified.
pub fn run(iterations: u64) -> u64 {
    let mut nodes = vec![Node { value: 0, next: 0 }; 200];
    let mut random = Random(9);
    let mut matrix: Matrix = [[0; SIDE]; SIDE];
    let mut sum = 0;
    for i in 0..iterations {
        for (next, node) in (1..).zip(&mut nodes) {
            *node = Node { value: random.next() >> 16, next };
        }
        let head = sort(&mut nodes, 0, 200);
        let head = reverse(&mut nodes, head);
        sum = walk(&nodes, head).fold(sum, crc_word);

        for cell in matrix.as_flattened_mut() {
            *cell = (random.next() >> 20) as i32 - 2_048;
        }
        matrix = multiply(&matrix, &matrix);
        sum =
            matrix.as_flattened().iter().fold(sum, |sum, &cell| crc_word(sum, (cell >> 3) as u32));

        sum = classify(black_box(TEXT)).into_iter().fold(sum, crc_word);
        sum = crc_word(sum, i as u32);
    }
    fold(0, sum.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value that catalogues of CRCs give for CRC-32.
    #[test]
    fn the_crc_is_crc_32() {
        assert_eq!(!b"123456789".iter().fold(!0, |sum, &b| crc(sum, b)), 0xcbf4_3926);
    }

    #[test]
    fn lists_are_sorted_and_reversed() {
        let values = [5, 1, 4, 4, 9, 0, 7];
        let mut nodes: Vec<Node> =
            (1..).zip(values).map(|(next, value)| Node { value, next }).collect();
        let head = sort(&mut nodes, 0, 7);
        assert!(walk(&nodes, head).eq([0, 1, 4, 4, 5, 7, 9]));
        let head = reverse(&mut nodes, head);
        assert!(walk(&nodes, head).eq([9, 7, 5, 4, 4, 1, 0]));
    }

    #[test]
    fn matrices_are_multiplied() {
        let mut shift = [[0; SIDE]; SIDE];
        for (row, cells) in shift.iter_mut().enumerate() {
            cells[(row + 1) % SIDE] = 2;
        }
        let square = multiply(&shift, &shift);
        assert_eq!((square[0][2], square[11][1], square[0][1]), (4, 4, 0));
        assert_eq!(square.as_flattened().iter().sum::<i32>(), 4 * SIDE as i32);
    }

    #[test]
    fn words_are_classified() {
        use State::*;
        let cases = [
            ("12", Integer),
            ("-", Sign),
            ("-.5", Point),
            ("3.e", Exponent),
            ("3e+", ExponentSign),
            ("1.5e-7", Scientific),
            ("1e5.", Invalid),
            ("", Start),
        ];
        for (word, last) in cases {
            assert_eq!(word.bytes().fold(Start, step), last, "{word}");
        }
        assert_eq!(classify(TEXT).iter().sum::<u32>(), 16);
    }
}
