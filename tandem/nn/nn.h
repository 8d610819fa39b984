// All of tandem::nn.
#pragma once

#include "tandem/nn/attention.h"
#include "tandem/nn/clip.h"
#include "tandem/nn/conv2d.h"
#include "tandem/nn/dropout.h"
#include "tandem/nn/embedding.h"
#include "tandem/nn/init.h"
#include "tandem/nn/layer_norm.h"
#include "tandem/nn/linear.h"
#include "tandem/nn/optim/adam.h"
#include "tandem/nn/optim/schedule.h"
#include "tandem/nn/optim/sgd.h"
#include "tandem/nn/reflect.h"
#include "tandem/nn/sequential.h"
#include "tandem/nn/training_flag.h"
#include "tandem/nn/transformer_block.h"
