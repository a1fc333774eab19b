//! A pickle read as data: the few opcodes and names that a dictionary of tensors needs, and no code.
//!
//! Values live in an arena and are numbers elsewhere, so that nothing a file says makes this recurse or free deeply.
//!
//! Source: CPython's `pickletools.py`, the opcodes; torch's `serialization.py` and `_utils.py`, what they build.

use std::collections::HashMap;

use crate::quoted::quoted;

/// Opcodes at most: a model needs about 40 for each tensor.
const MOST_STEPS: usize = 1 << 18;

/// Bytes of a text at most: names of tensors and of members of the archive.
const LONGEST_TEXT: usize = 1 << 12;

/// Index of a value.
pub(super) type Id = u32;

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name that may be called or names a dtype.
    Global(Global),
    /// Memory of the archive: torch's name of the dtype, the member, the number of elements.
    Storage {
        dtype: &'static str,
        key: Id,
        len: i64,
    },
    /// A view of a storage, in elements.
    Tensor {
        storage: Id,
        offset: i64,
        shape: Vec<i64>,
        stride: Vec<i64>,
    },
}

/// The names that are understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(&'static str),
}

fn global(module: &str, name: &str) -> Option<Global> {
    match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", "FloatStorage") => Some(Global::Storage("F32")),
        ("torch", "HalfStorage") => Some(Global::Storage("F16")),
        ("torch", "BFloat16Storage") => Some(Global::Storage("BF16")),
        ("torch", "DoubleStorage") => Some(Global::Storage("F64")),
        ("torch", "LongStorage") => Some(Global::Storage("I64")),
        ("torch", "IntStorage") => Some(Global::Storage("I32")),
        ("torch", "ByteStorage") => Some(Global::Storage("U8")),
        ("torch", "BoolStorage") => Some(Global::Storage("BOOL")),
        _ => None,
    }
}

/// A pickle that cannot be read: where, and what was found.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) found: String,
}

type Step<T> = Result<T, String>;

/// The values of a pickle, and the one it stands for.
pub(super) struct Unpickled {
    pub(super) values: Vec<Value>,
    pub(super) top: Id,
}

/// Reads a pickle.
///
/// # Errors
/// [`Wrong`] at the byte of the opcode that does not belong into a dictionary of tensors.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Unpickled, Wrong> {
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MOST_STEPS {
        let at = machine.at;
        let done = machine.step().map_err(|found| Wrong { at, found })?;
        if done {
            let top = machine.pop().map_err(|found| Wrong { at, found })?;
            return Ok(Unpickled { values: machine.values, top });
        }
    }
    Err(Wrong { at: machine.at, found: format!("more than {MOST_STEPS} opcodes") })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; whether it was the last.
    fn step(&mut self) -> Step<bool> {
        match self.byte()? {
            b'.' => return Ok(true),
            0x80 => self.protocol()?,
            0x95 => self.skip(8)?, // the length of a frame, which changes nothing
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => self.int::<4>(|bytes| i32::from_le_bytes(bytes).into())?,
            b'K' => self.int::<1>(|[byte]| byte.into())?,
            b'M' => self.int::<2>(|bytes| u16::from_le_bytes(bytes).into())?,
            0x8a => self.long()?,
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            b'c' => self.global_by_lines()?,
            0x93 => self.global_by_stack()?,
            b't' => self.tuple_of_mark()?,
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => self.remember_next()?,
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            b'b' => self.drop_state()?,
            b'a' => self.append(1)?,
            b'e' => self.append_of_mark()?,
            b's' => self.set_items(1)?,
            b'u' => self.set_items_of_mark()?,
            other => return Err(format!("opcode {other:#04x}, which no dictionary of tensors needs")),
        }
        Ok(false)
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| "the end of the pickle in the middle of a value".to_owned())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn byte(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    fn skip(&mut self, n: usize) -> Step<()> {
        self.take(n).map(|_| ())
    }

    /// A length or an index of `width` bytes.
    fn unsigned(&mut self, width: usize) -> Step<u32> {
        let mut bytes = [0; 4];
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn protocol(&mut self) -> Step<()> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(format!("pickle protocol {other}")),
        }
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len() as Id); // at most one value a step
        self.values.push(value);
    }

    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = self.stack.pop().filter(|_| self.stack.len() >= floor);
        value.ok_or_else(|| "an opcode that takes more values than there are".to_owned())
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| "the end of a group that never began".to_owned())?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "an opcode on an empty stack".to_owned())
    }

    fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    fn int<const N: usize>(&mut self, read: impl Fn([u8; N]) -> i64) -> Step<()> {
        let bytes = self.array()?;
        self.push(Value::Int(read(bytes)));
        Ok(())
    }

    /// An integer of up to 8 bytes, two's complement.
    fn long(&mut self) -> Step<()> {
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

    fn text(&mut self, width: usize) -> Step<()> {
        let len = self.unsigned(width)? as usize;
        if len > LONGEST_TEXT {
            return Err(format!("a text of {len} bytes"));
        }
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "text that is no UTF-8".to_owned())?;
        self.push(Value::Text(text.to_owned()));
        Ok(())
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(LONGEST_TEXT)];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name that is no UTF-8".to_owned())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Step<()> {
        let unknown = || format!("the name `{}`, which is not data", quoted(&format!("{module}.{name}")));
        let global = global(module, name).ok_or_else(unknown)?;
        self.push(Value::Global(global));
        Ok(())
    }

    fn global_by_lines(&mut self) -> Step<()> {
        let (module, name) = (self.line()?, self.line()?);
        self.push_global(module, name)
    }

    fn global_by_stack(&mut self) -> Step<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.value(module).clone(), self.value(name).clone()) {
            (Value::Text(module), Value::Text(name)) => self.push_global(&module, &name),
            _ => Err("a name that is no text".to_owned()),
        }
    }

    fn tuple_of_mark(&mut self) -> Step<()> {
        let items = self.pop_mark()?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn tuple_of(&mut self, n: usize) -> Step<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<Id>>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn remember(&mut self, width: usize) -> Step<()> {
        let index = self.unsigned(width)?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn remember_next(&mut self) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(self.memo.len() as u32, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Step<()> {
        let index = self.unsigned(width)?;
        let value = self.memo.get(&index).ok_or_else(|| format!("memo {index}, which was never set"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn append(&mut self, n: usize) -> Step<()> {
        let items = (0..n).map(|_| self.pop()).collect::<Step<Vec<Id>>>()?;
        self.extend_list(items)
    }

    fn append_of_mark(&mut self) -> Step<()> {
        let items = self.pop_mark()?;
        self.extend_list(items)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Step<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(held) => held.extend(items),
            _ => return Err("an append to what is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, pairs: usize) -> Step<()> {
        let mut items = (0..2 * pairs).map(|_| self.pop()).collect::<Step<Vec<Id>>>()?;
        items.reverse();
        self.extend_dict(&items)
    }

    fn set_items_of_mark(&mut self) -> Step<()> {
        let items = self.pop_mark()?;
        self.extend_dict(&items)
    }

    fn extend_dict(&mut self, items: &[Id]) -> Step<()> {
        let dict = self.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match &mut self.values[dict as usize] {
            Value::Dict(held) if odd.is_empty() => {
                held.extend(pairs.iter().map(|&[key, value]| (key, value)))
            }
            _ => return Err("items of what is no dictionary".to_owned()),
        }
        Ok(())
    }

    /// The persistent id of a storage: ("storage", type, key, place, length).
    fn storage(&mut self) -> Step<()> {
        let id = self.pop()?;
        let no_storage = || "a persistent id that is no storage".to_owned();
        let &[kind, dtype, key, _, len] = self.short_tuple(id)? else { return Err(no_storage()) };
        match (self.value(kind), self.value(dtype), self.value(len)) {
            (Value::Text(kind), &Value::Global(Global::Storage(dtype)), &Value::Int(len))
                if kind == "storage" =>
            {
                self.push(Value::Storage { dtype, key, len });
                Ok(())
            }
            _ => Err(no_storage()),
        }
    }

    fn call(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let arguments = self.short_tuple(arguments)?.to_vec();
        let Value::Global(callee) = *self.value(callee) else {
            return Err("a call of what is no name".to_owned());
        };
        match (callee, &arguments[..]) {
            (Global::OrderedDict, []) => {
                self.push(Value::Dict(Vec::new()));
                Ok(())
            }
            (Global::RebuildTensor, [storage, offset, shape, stride, ..]) => {
                self.tensor(*storage, *offset, *shape, *stride)
            }
            (Global::RebuildParameter, [tensor, ..]) => {
                self.stack.push(*tensor);
                Ok(())
            }
            _ => Err(format!("a call of {callee:?} with {} arguments", arguments.len())),
        }
    }

    fn tensor(&mut self, storage: Id, offset: Id, shape: Id, stride: Id) -> Step<()> {
        let &Value::Int(offset) = self.value(offset) else {
            return Err("a tensor without an offset".to_owned());
        };
        let (shape, stride) = (self.ints(shape)?, self.ints(stride)?);
        self.push(Value::Tensor { storage, offset, shape, stride });
        Ok(())
    }

    fn ints(&self, id: Id) -> Step<Vec<i64>> {
        let items = self.short_tuple(id)?;
        let int = |&id: &Id| match self.value(id) {
            Value::Int(n) => Ok(*n),
            _ => Err("a shape of what are no numbers".to_owned()),
        };
        items.iter().map(int).collect()
    }

    /// The items of a tuple that arguments or a shape make; a long one would be copied again and again.
    fn short_tuple(&self, id: Id) -> Step<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) if items.len() <= 16 => Ok(items),
            Value::Tuple(items) => Err(format!("a tuple of {} arguments or sizes", items.len())),
            _ => Err("arguments or sizes that are no tuple".to_owned()),
        }
    }

    /// The state of an object is attributes of Python, such as a dictionary's `_metadata`.
    fn drop_state(&mut self) -> Step<()> {
        self.pop().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(bytes: &[u8]) -> String {
        unpickle(bytes).err().expect("a refused pickle").found
    }

    #[test]
    fn plain_values_are_read() {
        let Unpickled { values, top } = unpickle(b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x05s.").unwrap();
        let Value::Dict(pairs) = &values[top as usize] else { panic!("a dictionary") };
        let (key, value) = pairs[0];
        assert_eq!(values[key as usize], Value::Text("a".to_owned()));
        assert_eq!(values[value as usize], Value::Int(5));
        let Unpickled { values, top } = unpickle(b"\x80\x02\x8a\x02\xff\xff.").unwrap();
        assert_eq!(values[top as usize], Value::Int(-1));
    }

    #[test]
    fn code_is_refused_by_its_name() {
        assert!(fails(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").contains("`os.system`"));
        assert!(fails(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").contains("`builtins.eval`"));
        assert!(fails(b"\x80\x02i__main__\nf\n.").contains("opcode 0x69"));
        assert!(fails(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.").contains("1 arguments"));
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

    /// Nesting costs no stack: two hundred thousand tuples around one another are read and freed.
    #[test]
    fn nesting_is_no_recursion() {
        let mut bytes = vec![b'N'];
        bytes.extend(std::iter::repeat_n(0x85, 200_000));
        bytes.push(b'.');
        assert!(unpickle(&bytes).is_ok());
        bytes.insert(0, b'N');
        bytes.extend(std::iter::repeat_n(0x85, 200_000));
        assert!(unpickle(&bytes).is_ok(), "it ends at the first stop");
    }
}
