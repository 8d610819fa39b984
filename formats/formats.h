// File formats.
#pragma once

#include "idx.h"
#include "image_grid.h"
#include "safetensors.h"
#include "weights.h"
