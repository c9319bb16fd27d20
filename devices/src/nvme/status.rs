//! Status codes of completions: the type in bits 10:8, the code below, Do Not Retry in bit 14.
//!
//! Source: NVM Express 1.3, 4.6.1.

/// The same command would fail again.
const DNR: u16 = 1 << 14;

pub(super) const SUCCESS: u16 = 0;
pub(super) const INVALID_OPCODE: u16 = 0x01 | DNR;
pub(super) const INVALID_FIELD: u16 = 0x02 | DNR;
pub(super) const INTERNAL_ERROR: u16 = 0x06;
pub(super) const INVALID_NAMESPACE: u16 = 0x0b | DNR;
pub(super) const SEQUENCE_ERROR: u16 = 0x0c | DNR;
pub(super) const PRP_OFFSET: u16 = 0x13 | DNR;
pub(super) const LBA_OUT_OF_RANGE: u16 = 0x80 | DNR;
pub(super) const CAPACITY_EXCEEDED: u16 = 0x81;
pub(super) const INVALID_CQ: u16 = 0x100 | DNR;
pub(super) const INVALID_QUEUE: u16 = 0x101 | DNR;
pub(super) const INVALID_QUEUE_SIZE: u16 = 0x102 | DNR;
pub(super) const EVENT_LIMIT: u16 = 0x105 | DNR;
pub(super) const INVALID_VECTOR: u16 = 0x108 | DNR;
pub(super) const INVALID_LOG_PAGE: u16 = 0x109 | DNR;
pub(super) const INVALID_DELETION: u16 = 0x10c | DNR;
pub(super) const NOT_SAVEABLE: u16 = 0x10d | DNR;
pub(super) const NOT_CHANGEABLE: u16 = 0x10e | DNR;
pub(super) const READ_ONLY: u16 = 0x182 | DNR;
pub(super) const WRITE_FAULT: u16 = 0x280;
pub(super) const UNRECOVERED_READ: u16 = 0x281;
