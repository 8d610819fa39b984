// Everything a program needs.
#pragma once

#include "autograd/anomaly.h"
#include "autograd/autograd.h"
#include "autograd/checkpoint.h"
#include "autograd/custom_function.h"
#include "core/autocast.h"
#include "core/custom_op.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "core/tensor.h"
#include "data/data.h"
#include "formats/formats.h"
#include "graph/trace/compile.h"
#include "lab/compare.h"
#include "lab/progress.h"
#include "nn/nn.h"
