//! Unpickler: a stack machine over the opcodes that a state dict needs. It runs no code.
//!
//! Methods are named after CPython's. Torch's objects are built in `objects`.
//!
//! Source: CPython's `pickletools.py` and `pickle.py`, `_Unpickler`.

use std::collections::HashMap;

use super::value::{Global, Id, Value};
use crate::quoted::quoted;

/// Largest number of opcodes; a model needs about 40 per tensor.
const MAX_OPCODES: usize = 1 << 18;

/// Longest string in bytes: names of tensors and of archive members.
const MAX_STRING_BYTES: usize = 1 << 12;

/// Pickle that cannot be read: byte offset, and what was found there.
#[derive(Debug, PartialEq)]
pub(super) struct UnpickleError {
    pub(super) at: usize,
    pub(super) found: String,
}

/// Result of an opcode; the error is what was found.
pub(super) type OpResult<T> = Result<T, String>;

/// Arena of a pickle's values, and its root object.
pub(super) struct Unpickled {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}

/// Reads a pickle.
///
/// # Errors
/// [`UnpickleError`] at the opcode that does not belong in a state dict.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Unpickled, UnpickleError> {
    let mut unpickler = Unpickler {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPCODES {
        let at = unpickler.at;
        let stopped = unpickler.step().map_err(|found| UnpickleError { at, found })?;
        if stopped {
            let root = unpickler.pop().map_err(|found| UnpickleError { at, found })?;
            return Ok(Unpickled { values: unpickler.values, root });
        }
    }
    Err(UnpickleError { at: unpickler.at, found: format!("more than {MAX_OPCODES} opcodes") })
}

/// State of the stack machine.
pub(super) struct Unpickler<'a> {
    bytes: &'a [u8],
    /// Offset of the next opcode.
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Unpickler<'a> {
    /// Runs one opcode. Returns whether it was `STOP`.
    fn step(&mut self) -> OpResult<bool> {
        match self.byte()? {
            b'.' => return Ok(true),
            0x80 => self.load_proto()?,
            0x95 => self.skip(8)?, // FRAME: its length has no effect
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => self.load_int::<4>(|bytes| i32::from_le_bytes(bytes).into())?,
            b'K' => self.load_int::<1>(|[byte]| byte.into())?,
            b'M' => self.load_int::<2>(|bytes| u16::from_le_bytes(bytes).into())?,
            0x8a => self.load_long1()?,
            b'X' => self.load_unicode(4)?,
            0x8c => self.load_unicode(1)?,
            b'c' => self.load_global()?,
            0x93 => self.load_stack_global()?,
            b't' => self.load_tuple()?,
            0x85 => self.load_tuple_of(1)?,
            0x86 => self.load_tuple_of(2)?,
            0x87 => self.load_tuple_of(3)?,
            b'q' => self.load_put(1)?,
            b'r' => self.load_put(4)?,
            0x94 => self.load_memoize()?,
            b'h' => self.load_get(1)?,
            b'j' => self.load_get(4)?,
            b'Q' => self.load_persistent_id()?,
            b'R' => self.load_reduce()?,
            b'b' => self.load_build()?,
            b'a' => self.load_append()?,
            b'e' => self.load_appends()?,
            b's' => self.load_setitem()?,
            b'u' => self.load_setitems()?,
            other => return Err(format!("opcode {other:#04x}, which no dictionary of tensors needs")),
        }
        Ok(false)
    }

    fn take(&mut self, n: usize) -> OpResult<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| "the end of the pickle in the middle of a value".to_owned())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> OpResult<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn byte(&mut self) -> OpResult<u8> {
        self.array().map(|[byte]| byte)
    }

    fn skip(&mut self, n: usize) -> OpResult<()> {
        self.take(n).map(|_| ())
    }

    /// Unsigned integer of `width` bytes, at most 4.
    fn unsigned(&mut self, width: usize) -> OpResult<u32> {
        let mut bytes = [0; 4];
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(u32::from_le_bytes(bytes))
    }

    /// Text up to the next line feed.
    fn line(&mut self) -> OpResult<&'a str> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(MAX_STRING_BYTES)];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name that is no UTF-8".to_owned())
    }

    /// Adds a value to the arena and pushes it.
    pub(super) fn push(&mut self, value: Value) {
        self.push_id(self.values.len() as Id); // at most one value per opcode
        self.values.push(value);
    }

    pub(super) fn push_id(&mut self, id: Id) {
        self.stack.push(id);
    }

    /// Pops a value above the last mark.
    pub(super) fn pop(&mut self) -> OpResult<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = self.stack.pop().filter(|_| self.stack.len() >= floor);
        value.ok_or_else(|| "an opcode that takes more values than there are".to_owned())
    }

    /// Pops `n` values, in the order pushed.
    fn pop_n(&mut self, n: usize) -> OpResult<Vec<Id>> {
        let mut items = (0..n).map(|_| self.pop()).collect::<OpResult<Vec<Id>>>()?;
        items.reverse();
        Ok(items)
    }

    /// Pops the values above the last mark, and the mark.
    fn pop_mark(&mut self) -> OpResult<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| "the end of a group that never began".to_owned())?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> OpResult<Id> {
        self.stack.last().copied().ok_or_else(|| "an opcode on an empty stack".to_owned())
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    fn load_proto(&mut self) -> OpResult<()> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(format!("pickle protocol {other}")),
        }
    }

    fn load_int<const N: usize>(&mut self, read: impl Fn([u8; N]) -> i64) -> OpResult<()> {
        let bytes = self.array()?;
        self.push(Value::Int(read(bytes)));
        Ok(())
    }

    /// `LONG1`: a two's complement integer, of up to 8 bytes here.
    fn load_long1(&mut self) -> OpResult<()> {
        let len = usize::from(self.byte()?);
        let bytes = self.take(len)?;
        if len > 8 {
            return Err(format!("an integer of {len} bytes"));
        }
        let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        whole[..len].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(whole)));
        Ok(())
    }

    fn load_unicode(&mut self, width: usize) -> OpResult<()> {
        let len = self.unsigned(width)? as usize;
        if len > MAX_STRING_BYTES {
            return Err(format!("a text of {len} bytes"));
        }
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "text that is no UTF-8".to_owned())?;
        self.push(Value::Text(text.to_owned()));
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> OpResult<()> {
        let unknown = || format!("the name `{}`, which is not data", quoted(&format!("{module}.{name}")));
        let global = Global::find(module, name).ok_or_else(unknown)?;
        self.push(Value::Global(global));
        Ok(())
    }

    fn load_global(&mut self) -> OpResult<()> {
        let (module, name) = (self.line()?, self.line()?);
        self.push_global(module, name)
    }

    fn load_stack_global(&mut self) -> OpResult<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.value(module).clone(), self.value(name).clone()) {
            (Value::Text(module), Value::Text(name)) => self.push_global(&module, &name),
            _ => Err("a name that is no text".to_owned()),
        }
    }

    fn load_tuple(&mut self) -> OpResult<()> {
        let items = self.pop_mark()?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn load_tuple_of(&mut self, n: usize) -> OpResult<()> {
        let items = self.pop_n(n)?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn load_put(&mut self, width: usize) -> OpResult<()> {
        let index = self.unsigned(width)?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn load_memoize(&mut self) -> OpResult<()> {
        let top = self.top()?;
        self.memo.insert(self.memo.len() as u32, top);
        Ok(())
    }

    fn load_get(&mut self, width: usize) -> OpResult<()> {
        let index = self.unsigned(width)?;
        let value = self.memo.get(&index).ok_or_else(|| format!("memo {index}, which was never set"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn load_append(&mut self) -> OpResult<()> {
        let item = self.pop()?;
        self.extend_list(vec![item])
    }

    fn load_appends(&mut self) -> OpResult<()> {
        let items = self.pop_mark()?;
        self.extend_list(items)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> OpResult<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            _ => return Err("an append to what is no list".to_owned()),
        }
        Ok(())
    }

    fn load_setitem(&mut self) -> OpResult<()> {
        let pair = self.pop_n(2)?;
        self.extend_dict(&pair)
    }

    fn load_setitems(&mut self) -> OpResult<()> {
        let items = self.pop_mark()?;
        self.extend_dict(&items)
    }

    fn extend_dict(&mut self, items: &[Id]) -> OpResult<()> {
        let dict = self.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match &mut self.values[dict as usize] {
            Value::Dict(dict) if odd.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)))
            }
            _ => return Err("items of what is no dictionary".to_owned()),
        }
        Ok(())
    }

    /// `BUILD`: drops the state, which holds Python attributes such as `_metadata`.
    fn load_build(&mut self) -> OpResult<()> {
        self.pop().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Value;
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        unpickle(bytes).err().expect("a refused pickle").found
    }

    #[test]
    fn plain_values_are_read() {
        let Unpickled { values, root } = unpickle(b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x05s.").unwrap();
        let Value::Dict(pairs) = &values[root as usize] else { panic!("a dictionary") };
        let (key, value) = pairs[0];
        assert_eq!(values[key as usize], Value::Text("a".to_owned()));
        assert_eq!(values[value as usize], Value::Int(5));
        let Unpickled { values, root } = unpickle(b"\x80\x02\x8a\x02\xff\xff.").unwrap();
        assert_eq!(values[root as usize], Value::Int(-1));
    }

    #[test]
    fn code_is_refused_by_its_name() {
        assert!(refused(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").contains("`os.system`"));
        assert!(refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").contains("`builtins.eval`"));
        assert!(refused(b"\x80\x02i__main__\nf\n.").contains("opcode 0x69"));
        assert!(refused(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.").contains("1 arguments"));
    }

    #[test]
    fn broken_pickles_are_refused() {
        for bytes in [
            &b""[..],
            b"\x80",
            b"\x80\x09.",
            b".",
            b"K",
            b"X\xff\xff\xff\xffa",
            b"t.",
            b"h\x00.",
            b"K\x01a.",
            b"(K\x01K\x02u.",
            b"K\x01R.",
            b"K\x01Q.",
            b"\x8a\xff.",
            b"cx",
            b"q\x00.",
            b"}K\x01s.",
            b"(\x85.",
            b"\x80\x02}(K\x01u.",
        ] {
            assert!(unpickle(bytes).is_err(), "{bytes:?}");
        }
    }

    /// Two hundred thousand nested tuples are read and freed without recursion.
    #[test]
    fn nesting_does_not_recurse() {
        let mut bytes = vec![b'N'];
        bytes.extend(std::iter::repeat_n(0x85, 200_000));
        bytes.push(b'.');
        assert!(unpickle(&bytes).is_ok());
        bytes.insert(0, b'N');
        bytes.extend(std::iter::repeat_n(0x85, 200_000));
        assert!(unpickle(&bytes).is_ok(), "it ends at the first stop");
    }
}
