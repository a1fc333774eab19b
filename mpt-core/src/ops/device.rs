//! Backend of each device.

use candle_core::{Device, Tensor};

use super::backend::Backend;
use super::cpu::Cpu;
use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// Backend of the device of `tensor`.
pub(super) fn backend_of(tensor: &Tensor) -> Result<&'static dyn Backend> {
    backend(tensor.device())
}

/// Backend of the device of a parameter; stored parameters are in main memory.
pub(super) fn backend_of_parameter(parameter: &Parameter) -> Result<&'static dyn Backend> {
    match parameter {
        Parameter::Tensor(tensor) => backend_of(tensor),
        Parameter::Stored(_) => Ok(&Cpu),
    }
}

/// Checks that this build can compute on `device`.
///
/// # Errors
/// [`Error::Device`] naming the device when it cannot.
pub fn check_device(device: &Device) -> Result<()> {
    backend(device).map(|_| ())
}

fn backend(device: &Device) -> Result<&'static dyn Backend> {
    match device {
        Device::Cpu => Ok(&Cpu),
        other => Err(Error::Device { device: format!("{:?}", other.location()) }),
    }
}
