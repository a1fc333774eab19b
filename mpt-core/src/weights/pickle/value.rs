//! Values of a pickle: plain data, and the torch objects that a state dict needs.
//!
//! Values live in an arena and refer to each other by id, so hostile nesting never makes a drop or a read recurse.

/// Index of a value in the arena.
pub(super) type Id = u32;

/// Value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Allow-listed global.
    Global(Global),
    /// Storage of the archive.
    Storage {
        /// Dtype as safetensors spells it.
        dtype: &'static str,
        /// Name of the archive member.
        key: Id,
        /// Number of elements.
        len: i64,
    },
    /// View of a storage, in elements.
    Tensor {
        storage: Id,
        offset: i64,
        shape: Vec<i64>,
        stride: Vec<i64>,
    },
}

/// Allow-listed globals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// Storage type, with its dtype as safetensors spells it.
    Storage(&'static str),
}

impl Global {
    /// Global `module.name`; `None` when it is not on the allow-list.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "FloatStorage") => Some(Self::Storage("F32")),
            ("torch", "HalfStorage") => Some(Self::Storage("F16")),
            ("torch", "BFloat16Storage") => Some(Self::Storage("BF16")),
            ("torch", "DoubleStorage") => Some(Self::Storage("F64")),
            ("torch", "LongStorage") => Some(Self::Storage("I64")),
            ("torch", "IntStorage") => Some(Self::Storage("I32")),
            ("torch", "ByteStorage") => Some(Self::Storage("U8")),
            ("torch", "BoolStorage") => Some(Self::Storage("BOOL")),
            _ => None,
        }
    }
}
