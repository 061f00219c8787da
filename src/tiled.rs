//! ONNX Runtime's convolutions in blocks, put on the processor's matrix unit where it has one: see [`crate::convolution`].
//!
//! Those whose inputs and outputs fill blocks are three quarters of a page's time. Their weights become tiles when the network is loaded, in as many
//! bytes; a Gelu that takes such a sum is done with it, while it is in the nearest cache.

use crate::blocks::{BLOCKED, DOMAIN, Own, is, quantizes};
use crate::convolution::{Activation, Plan, Window};
use crate::onnx::{Changes, Graph, Kind, Node, new};
use crate::rewrite::name;
use crate::tiles;

/// Replaces all convolutions that the unit can do.
pub(crate) fn on_tiles(graph: &Graph, changes: &mut Changes) {
    // A sum that is off by a millionth would round some integers to the other side.
    if !tiles::is_there() || graph.nodes.values().any(quantizes) {
        return;
    }
    for (&at, node) in &graph.nodes {
        let mut own = Changes::new();
        if on_tile(graph, at, node, &mut own).is_some() {
            changes.append(&mut own);
        }
    }
}

fn on_tile(graph: &Graph, at: usize, node: &Node, changes: &mut Changes) -> Option<()> {
    let (&[map, weights, ref more @ ..], &[output]) = (&*node.inputs, &*node.outputs) else { return None };
    let is_plain = node.foreign == (BLOCKED, "Conv")
        && is(node, "dilations", 1)
        && node.integer("group").is_none_or(|groups| groups == 1)
        && node.text("auto_pad").is_none_or(|pads| pads == "NOTSET");
    let activation = match node.text("activation") {
        None | Some("") => Activation::None,
        Some("Relu") => Activation::Relu,
        _ => return None,
    };
    if !is_plain {
        return None;
    }
    let (weights, name_of) = (graph.take_constant(weights, Kind::F32, changes)?, |part| name(output, part));
    let &[outputs, inputs, height, width] = &*weights.dimensions else { return None };
    let side = |side: u64| usize::try_from(side).ok();
    let sides = [side(outputs)?, side(inputs)?, side(height)?, side(width)?];
    let list = |attribute, missing: &[u64]| node.integers(attribute).unwrap_or_else(|| missing.to_vec());
    let (strides, pads) = (list("strides", &[1, 1]), list("pads", &[0; 4]));
    let (&[down, right], &[above, left, below, after]) = (&*strides, &*pads) else { return None };
    let window = Window {
        kernel: [sides[2], sides[3]],
        strides: [side(down)?, side(right)?],
        pads: [side(above)?, side(left)?, side(below)?, side(after)?],
    };
    let tiles: Vec<u8> = tiles::tiles(&weights.values, sides)?.into_iter().flat_map(u32::to_le_bytes).collect();
    let (bias, sum) = match *more {
        [] => ("", None),
        [bias] => (bias, None),
        [bias, sum] => (bias, Some(sum)),
        _ => return None,
    };
    let mut fields = new::constant(&name_of("tiles"), Kind::F32, &[tiles.len() as u64 / 4], &tiles);
    let bias = if bias.is_empty() {
        let zeros = vec![0; sides[0] * 4];
        fields.extend(new::constant(&name_of("bias"), Kind::F32, &[outputs], &zeros));
        name_of("bias")
    } else {
        bias.to_owned()
    };
    let mut plan = Plan { window, activation };
    let mut given = output;
    if let (Activation::None, true, mut users) = (activation, output != graph.output, graph.users(output))
        && let (Some((gelu_at, gelu)), None) = (users.next(), users.next())
        && let ((DOMAIN, "Gelu"), &[last]) = (gelu.foreign, &*gelu.outputs)
    {
        changes.insert(gelu_at, Vec::new());
        (plan.activation, given) = (Activation::Gelu, last);
    }
    let numbers: Vec<u8> = plan.numbers().into_iter().flat_map(f32::to_le_bytes).collect();
    fields.extend(new::constant(&name_of("window"), Kind::F32, &[numbers.len() as u64 / 4], &numbers));
    let (tiles, window) = (name_of("tiles"), name_of("window"));
    let mut inputs = vec![map, &tiles, &bias, &window];
    inputs.extend(sum);
    let own = if sum.is_some() { Own::ConvolutionSum } else { Own::Convolution };
    fields.extend(new::node_of(DOMAIN, own.signature().0, &inputs, given, &[]));
    changes.insert(at, fields);
    Some(())
}
