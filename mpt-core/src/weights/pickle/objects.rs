//! Torch objects of a pickle: `REDUCE` over the allow-list and persistent ids of storages.
//!
//! Source: torch's `serialization.py` and `_utils.py`.

use super::unpickler::{OpResult, Unpickler};
use super::value::{Global, Id, Value};

/// Largest number of arguments or dimensions; a long tuple would be copied again and again.
const MAX_TUPLE_LEN: usize = 16;

impl Unpickler<'_> {
    /// `BINPERSID`: a storage, from `("storage", type, key, location, length)`.
    pub(super) fn load_persistent_id(&mut self) -> OpResult<()> {
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

    /// `REDUCE`: the result of an allow-listed callable.
    pub(super) fn load_reduce(&mut self) -> OpResult<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let arguments = self.short_tuple(arguments)?.to_vec();
        let Value::Global(callable) = *self.value(callable) else {
            return Err("a call of what is no name".to_owned());
        };
        match (callable, &arguments[..]) {
            (Global::OrderedDict, []) => {
                self.push(Value::Dict(Vec::new()));
                Ok(())
            }
            (Global::RebuildTensor, [storage, offset, shape, stride, ..]) => {
                self.rebuild_tensor(*storage, *offset, *shape, *stride)
            }
            (Global::RebuildParameter, [tensor, ..]) => {
                self.push_id(*tensor);
                Ok(())
            }
            _ => Err(format!("a call of {callable:?} with {} arguments", arguments.len())),
        }
    }

    fn rebuild_tensor(&mut self, storage: Id, offset: Id, shape: Id, stride: Id) -> OpResult<()> {
        let &Value::Int(offset) = self.value(offset) else {
            return Err("a tensor without an offset".to_owned());
        };
        let (shape, stride) = (self.ints(shape)?, self.ints(stride)?);
        self.push(Value::Tensor { storage, offset, shape, stride });
        Ok(())
    }

    /// Integers of a tuple.
    fn ints(&self, id: Id) -> OpResult<Vec<i64>> {
        let items = self.short_tuple(id)?;
        let int = |&id: &Id| match self.value(id) {
            Value::Int(n) => Ok(*n),
            _ => Err("a shape of what are no numbers".to_owned()),
        };
        items.iter().map(int).collect()
    }

    /// Items of a tuple of arguments or sizes.
    fn short_tuple(&self, id: Id) -> OpResult<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) if items.len() <= MAX_TUPLE_LEN => Ok(items),
            Value::Tuple(items) => Err(format!("a tuple of {} arguments or sizes", items.len())),
            _ => Err("arguments or sizes that are no tuple".to_owned()),
        }
    }
}
