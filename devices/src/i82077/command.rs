//! The commands of the 82077AA by their first byte.
//!
//! Source: Intel 82077AA datasheet (290166), 5.1 (command set).

/// What a command does, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    ReadTrack,
    Specify,
    SenseDriveStatus,
    WriteData,
    ReadData,
    Recalibrate,
    SenseInterruptStatus,
    ReadId,
    FormatTrack,
    Dumpreg,
    Seek,
    Version,
    Perpendicular,
    Configure,
    Lock,
    Verify,
    RelativeSeek,
    Invalid,
}

/// Command, its bits beside those that are free (MT, MFM, SK, LOCK, DIR), bytes of the command.
pub(super) const COMMANDS: [(Command, u8, u8, usize); 20] = [
    (Command::ReadTrack, 0x02, 0x9f, 9),
    (Command::Specify, 0x03, 0xff, 3),
    (Command::SenseDriveStatus, 0x04, 0xff, 2),
    (Command::WriteData, 0x05, 0x3f, 9),
    (Command::ReadData, 0x06, 0x1f, 9),
    (Command::Recalibrate, 0x07, 0xff, 2),
    (Command::SenseInterruptStatus, 0x08, 0xff, 1),
    (Command::WriteData, 0x09, 0x3f, 9), // deleted data: marks are not kept
    (Command::ReadId, 0x0a, 0xbf, 2),
    (Command::ReadData, 0x0c, 0x1f, 9),
    (Command::FormatTrack, 0x0d, 0xbf, 6),
    (Command::Dumpreg, 0x0e, 0xff, 1),
    (Command::Seek, 0x0f, 0xff, 3),
    (Command::Version, 0x10, 0xff, 1),
    (Command::Perpendicular, 0x12, 0xff, 2),
    (Command::Configure, 0x13, 0xff, 4),
    (Command::Lock, 0x14, 0x7f, 1),
    (Command::Verify, 0x16, 0x1f, 9),
    (Command::RelativeSeek, 0x8f, 0xbf, 3),
    (Command::Invalid, 0, 0, 1),
];

/// What a command is, and how many bytes it has.
pub(super) fn decode(byte: u8) -> (Command, usize) {
    let row = COMMANDS.iter().find(|r| byte & r.2 == r.1);
    row.map_or((Command::Invalid, 1), |r| (r.0, r.3))
}
