//! Feed-forward layer: MLP or GLU.

use candle_core::Tensor;

use super::Linear;
use crate::config::{Activation, FfnType, MptConfig};
use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops;
use crate::params::Module;
use crate::source::ParamBuilder;

/// `down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub struct Ffn {
    up_proj: Linear,
    gate_proj: Option<Linear>,
    down_proj: Linear,
    activation: Activation,
}

/// Activations saved for the backward pass: outputs of the first projections, `[tokens, ffn_hidden_size]`.
#[derive(Debug)]
pub struct FfnSaved {
    up: Tensor,
    gate: Option<Tensor>,
}

impl Ffn {
    /// Reads `up_proj`, `down_proj` and, for GLU, `gate_proj`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let (d, hidden) = (config.d_model, config.ffn_hidden_size);
        let linear = |module, widths| Linear::new(module, widths, config, pb);
        let gate_proj =
            (config.ffn_type == FfnType::Glu).then(|| linear(Module::GateProj, [d, hidden])).transpose()?;
        Ok(Self {
            up_proj: linear(Module::UpProj, [d, hidden])?,
            gate_proj,
            down_proj: linear(Module::DownProj, [hidden, d])?,
            activation: config.activation,
        })
    }

    /// Output `[tokens, d]` for `x` `[tokens, d]`.
    ///
    /// # Errors
    /// When the width of `x` is not `d`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward_train(x)?.0)
    }

    /// [`Ffn::forward`], and the activations for [`Ffn::backward`].
    ///
    /// # Errors
    /// When the width of `x` is not `d`.
    pub fn forward_train(&self, x: &Tensor) -> Result<(Tensor, FfnSaved)> {
        let up = self.up_proj.forward(x)?;
        let gate = self.gate_proj.as_ref().map(|gate| gate.forward(x)).transpose()?;
        let saved = FfnSaved { up, gate };
        Ok((self.down_proj.forward(&self.activated(&saved)?)?, saved))
    }

    /// Gradient of the input `x` `[tokens, d]`, from the gradient of the output, `dy` `[tokens, d]`.
    ///
    /// # Errors
    /// When shapes disagree, and those of `sink`.
    pub fn backward(
        &self,
        x: &Tensor,
        saved: FfnSaved,
        dy: &Tensor,
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        let d_activated = self.down_proj.backward(&self.activated(&saved)?, dy, sink)?;
        match (&self.gate_proj, saved) {
            (Some(gate_proj), FfnSaved { up, gate: Some(gate) }) => {
                let [d_gate, d_up] = ops::glu_backward(gate, up, self.activation, &d_activated)?;
                drop(d_activated);
                let dx = self.up_proj.backward(x, &d_up, sink)?;
                ops::add(&dx, &gate_proj.backward(x, &d_gate, sink)?)?;
                Ok(dx)
            }
            (_, FfnSaved { up, .. }) => {
                let d_up = ops::activation_backward(up, self.activation, &d_activated)?;
                drop(d_activated);
                self.up_proj.backward(x, &d_up, sink)
            }
        }
    }

    fn activated(&self, FfnSaved { up, gate }: &FfnSaved) -> Result<Tensor> {
        match gate {
            Some(gate) => ops::glu(gate, up, self.activation),
            None => ops::activation(up, self.activation),
        }
    }
}
