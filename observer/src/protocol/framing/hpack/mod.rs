//! Header compression of HTTP/2 (RFC 7541), for one who only listens and may have come late.

mod huffman;
mod table;

pub(crate) use table::Field;
use table::Table;

/// Bytes of the fields of one block, counted as RFC 9113, section 6.5.2 does: what is beyond is let go, so that 64 KiB of
/// references to one long entry cost no more than the fields that servers accept.
const MAX_LIST: usize = 256 << 10;

/// Largest integer: far more than a block is long.
const MAX_INTEGER: usize = 1 << 28;

/// A block that breaks the rules: what it did to the table is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// Decodes the header blocks of one direction of a connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// A decoder for a connection from its beginning.
    pub(crate) const fn new() -> Self {
        Self {
            table: Table::new(),
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Takes in that blocks were not seen, or that one was broken.
    pub(crate) fn forget(&mut self) {
        self.table.forget();
    }

    /// Decodes a whole block and hands each field to `take`.
    pub(crate) fn decode(&mut self, mut block: &[u8], mut take: impl FnMut(Field<'_>)) -> Result<(), Broken> {
        let mut room = MAX_LIST;
        while let Some(first) = block.first() {
            let field = match first {
                0x80.. => match integer(&mut block, 7)? {
                    0 => return Err(Broken),
                    index => self.table.get(index),
                },
                0x20..0x40 => {
                    self.table.resize(integer(&mut block, 5)?);
                    continue;
                }
                0x40..0x80 => {
                    let named = self.literal(&mut block, 6)?;
                    self.table.insert(named.then_some(&self.name[..]), &self.value);
                    self.read(named)
                }
                _ => {
                    let named = self.literal(&mut block, 4)?;
                    self.read(named)
                }
            };
            let length = |text: Option<&[u8]>| text.map_or(0, <[u8]>::len);
            room = room.saturating_sub(32 + length(field.name) + length(field.value));
            if room > 0 {
                take(field);
            }
        }
        Ok(())
    }

    /// The field that was read last.
    fn read(&self, named: bool) -> Field<'_> {
        Field {
            name: named.then_some(&self.name[..]),
            value: Some(&self.value),
        }
    }

    /// Reads a literal field (section 6.2); whether its name is known.
    fn literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<bool, Broken> {
        self.name.clear();
        self.value.clear();
        let named = match integer(block, prefix)? {
            0 => {
                string(block, &mut self.name)?;
                true
            }
            index => {
                let name = self.table.get(index).name;
                self.name.extend_from_slice(name.unwrap_or_default());
                name.is_some()
            }
        };
        string(block, &mut self.value)?;
        Ok(named)
    }

    /// Gives back room.
    pub(crate) fn rest(&mut self) {
        (self.name, self.value) = (Vec::new(), Vec::new());
    }
}

/// Reads an integer (section 5.1) whose first byte has `prefix` bits of it.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let mut next = || block.split_off_first().copied().ok_or(Broken);
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(next()?) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(next()?);
        value += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return if value < MAX_INTEGER { Ok(value) } else { Err(Broken) };
        }
    }
    Err(Broken)
}

/// Reads a string (section 5.2) and appends it to `out`.
fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    let coded = block.first().is_some_and(|byte| *byte >= 0x80);
    let length = integer(block, 7)?;
    let text = block.split_off(..length).ok_or(Broken)?;
    if !coded {
        out.extend_from_slice(text);
    } else if !huffman::decode(text, out) {
        return Err(Broken);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
