// Everything a program needs.
#pragma once

#include "tandem/autograd/anomaly.h"
#include "tandem/autograd/autograd.h"
#include "tandem/autograd/checkpoint.h"
#include "tandem/autograd/custom_function.h"
#include "tandem/core/autocast.h"
#include "tandem/core/custom_op.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"
#include "tandem/core/random.h"
#include "tandem/core/tensor.h"
#include "tandem/graph/compile.h"
#include "tandem/io/io.h"
#include "tandem/lab/compare.h"
#include "tandem/nn/nn.h"
