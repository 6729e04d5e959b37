"""The ``--help`` text of each command; ``{program}`` and ``{choices}`` are filled in."""

from __future__ import annotations

HELP = {
    "train": """\
Train a model. Every part is chosen by name, and every key can be set on the command line.

Examples:
  {program}                                       the default: a small HRNet on drawn images
  {program} loss=focal loss.gamma=3               another loss and its parameter
  {program} model=hrnet_w18 mining=ohem           another model; only the hard pixels count
  {program} dataset=folder dataset.root=DIR dataset.num_classes=2
  {program} dataset=camvid dataset.root=DIR experiment=camvid_cpu
  {program} -m loss=focal,dice seed=0,1,2         one run for each combination, then a comparison
  {program} -m loss=focal,dice seed=0,1 sweep_dir=DIR resume=auto   finish a sweep
  {program} run_dir=DIR resume=auto               resume a run
  {program} plugins=[my_losses.py] loss=mine      your own loss
  {program} loss=focal --cfg                      print the whole configuration and stop

Choices:
{choices}

All keys and their values: {program} --cfg
Results: outputs/<name>/<time>, or run_dir=DIR, with checkpoints, metrics.jsonl, results.json; with
-m outputs/sweeps/<name>/<time>, or sweep_dir=DIR, with a folder per run and comparison.html.
Exit codes: 0 done, 2 configuration, 3 data, 4 checkpoint, 5 numbers, 6 resources,
7 run directory in use, 130 or 143 stopped by a signal.""",
    "evaluate": """\
Score a checkpoint, on the dataset of its training or on another one.

Examples:
  {program} checkpoint=RUN_DIR
  {program} checkpoint=RUN_DIR split=train output=scores.json
  {program} checkpoint=RUN_DIR/checkpoints/last.pt dataset=camvid dataset.root=DIR
  {program} checkpoint=RUN_DIR evaluation=hrnet
  {program} checkpoint=RUN_DIR evaluation.window=[512,512] evaluation.flip=true
  {program} checkpoint=RUN_DIR thresholds=sweep
  {program} checkpoint=RUN_DIR dataset=voc2012 class_map.bus=car class_map.pole=null

Keys:
  checkpoint               a file, or a run directory (its checkpoints/best.pt)
  dataset, dataset.*       another dataset, or changed keys of the one of training
  class_map                the scored names of classes of the model and the dataset; null: pixels
                           of this class are ignored. The other classes keep their names. Without
                           it, both must have the same classes
  thresholds               for one logit and multi-label data: the probability above which a class
                           is predicted, a number or one per class; sweep: choose those of the
                           largest IoU on the val split, and store them in the checkpoint. Default:
                           those in the checkpoint, else 0.5
  split                    val (default), train or test
  evaluation               a preset: hrnet (six scales and flips) or default (one view)
  evaluation.window        [height,width] of sliding windows, multiples of 32; also
                           evaluation.stride and evaluation.blend (gaussian or uniform)
  evaluation.scales        sizes at which the model sees each image, such as [0.75,1,1.25]
  evaluation.flip          true: the model also sees each image flipped from left to right
  evaluation.batch_size    images per forward pass; default: as in training
  evaluation.size          [height,width] to which images are resized for the model; masks and
                           scores keep the original size
  evaluation.metrics       the metrics, such as [iou,dice,hd95]; default: as in training
  evaluation.classes       names of the classes that count in the mean of a metric
  list_images              the number of the worst and of the best images that are listed, by the
                           score trainer.best of the training; default: 5; 0: none
  loader.num_workers       processes that load images
  device                   auto (default), cpu, cuda, cuda:1, ...
  output                   a JSON file for the scores; the counts of each image go beside it (.npz)
  plugins                  files that register the model or the dataset""",
    "compare": """\
Compare runs: which is better, by how much, and how sure that is. Runs that differ in nothing but
the seed form a group, and each group is compared with the baseline that agrees with it in all other
keys, paired by seed and image.

Examples:
  {program} outputs/sweeps/NAME/TIME
  {program} DIR metric=dice baseline=loss=dice output=FOLDER
  {program} RUN_DIR RUN_DIR RUN_DIR RUN_DIR

Keys:
  directories              run directories, sweep directories, or folders of them; without a key
  metric                   iou (default), another metric that the runs computed, or its value for a
                           class, as in iou[pole]
  baseline                 keys and values of the baseline, separated by commas; default:
                           loss=cross_entropy if there is such a group, else the first one
  output                   the folder to write to; default: the sweep, or a new folder in
                           outputs/comparisons
  plugins                  files that register the metric

It writes comparison.json, .md, .tex, .csv and .html. The interval covers 95 % and holds for
other seeds and other images like these.""",
    "predict": """\
Predict an image, or every image of a folder, at its original size.

Example:
  {program} checkpoint=RUN_DIR input=FOLDER output=FOLDER

It writes three folders in output: ids (class ids as grey PNG files, of 16 bits if there are more
than 256 ids), color (masks in the colours of the classes: palette PNG files, whose values are the
ids, or RGB files if there are more than 256 ids) and overlay (the colours over the image). For
multi-label data, ids has one folder per class and color has RGB files.

Keys:
  checkpoint               a file, or a run directory (its checkpoints/best.pt)
  input                    an image, or a folder of images
  output                   the folder to write to
  valid                    a folder or glob with a file for each image; where it is 0, the ids are
                           the ignore label, and nothing is drawn
  size                     [height,width] to which images are resized for the model; default: as
                           in training
  device                   auto (default), cpu, cuda, cuda:1, ...
  plugins                  files that register the model""",
    "import": """\
Convert weights of other code into a checkpoint for evaluate, predict and model.weights.

Examples:
  {program} weights=best.pth model=hrnet_w48 model.align_corners=false output=imported.pt
  {program} weights=best.pth model=hrnet_w48_ocr model.align_corners=true \\
      dataset=camvid dataset.root=DIR output=imported.pt
  {program} weights=hf://OWNER/NAME model=hrnet_w18 dataset.num_classes=19 output=imported.pt

It reads the official HRNet files (best.pth, final_state.pth, checkpoint.pth.tar), torchvision
files, plain state dicts and checkpoints of segtrain, also as safetensors. Every weight must fit;
otherwise nothing is written. A file without a head, such as ImageNet weights, cannot be imported:
train with model.weights instead.

Keys:
  weights                  a file, a run directory, or hf://OWNER/NAME[/FILE][@REVISION]
  output                   the checkpoint to write, a .pt file
  model, model.*           the model of the weights, with its parameters
  model.align_corners      as in the training of the weights; required for official files, which
                           do not store it
  model.abn                true for files of PyTorch 0.4.1 with InPlaceABN
  dataset, dataset.*       the classes; without dataset=, set dataset.num_classes (default: that
                           of the file), dataset.class_names and dataset.palette
  augmentation.mean, .std  the normalization in the training of the weights
  evaluation.size          [height,width] to which images are resized for the model""",
    "inspect": """\
Check every image and mask of a dataset, and write a report.

Examples:
  {program} dataset=folder dataset.root=DIR dataset.num_classes=3
  {program} dataset=camvid dataset.root=DIR --augment augmentation=strong

It finds missing, unreadable, truncated and duplicate files, images and masks of different sizes,
values outside the label contract, images in two splits, masks without a valid pixel, classes with
few or no pixels, and images far larger than most. The exit code is 3 if training would fail.

It writes report.html, report.json and class_weights.json (for loss.class_weights=FILE). With
--augment it also writes augmented.html, which shows samples as the first epochs of a run would
augment them. It prints mean and standard deviation of the train images as keys for segtrain train.

Keys:
  dataset, dataset.*       the dataset to check; required
  output                   a directory; default: outputs/inspect/<title of the dataset>
  decode                   false: read only the headers of images, which is faster
  num_examples             samples shown in the report
  class_weights            method of class_weights.json: auto (default), inverse_frequency,
                           median_frequency, inverse_log or effective_number
  augment                  true: the same as --augment
  augmentation, augmentation.*
                           the augmentation that --augment shows
  num_augmented            samples that --augment shows
  num_epochs               epochs of each sample that --augment shows
  seed                     seed of the run that --augment shows
  plugins                  files that register the dataset""",
    "shards": """\
Write a split of a dataset as tar shards, to be read from a disk or a URL by dataset=webdataset.

Examples:
  {program} dataset=folder dataset.root=DIR dataset.num_classes=3 split=train output=DIR
  {program} dataset=cityscapes dataset.root=DIR split=val output=DIR samples_per_shard=500

It writes
  SPLIT-000000.tar, ...    the image and mask files, unchanged, as KEY.jpg and KEY.mask.png
  SPLIT-index.jsonl        the index with which shards are read and checked
  dataset/NAME_shards.yaml the dataset config, with the classes

To train on the shards, after both splits are written:
  segtrain train --config-dir DIR dataset=NAME_shards
  segtrain train --config-dir DIR dataset=NAME_shards dataset.root=https://HOST/PATH

Every file is decoded once. A file that is broken (beyond dataset.max_bad) or outside the label
contract ends the command. Run again, the command continues after the last complete shard.

Keys:
  dataset, dataset.*       the dataset to write; required
  output                   the directory to write to; required
  split                    train (default) or val
  samples_per_shard        default: 1000
  max_shard_gb             largest size of a shard, in 1e9 bytes; default: 1
  shuffle                  false: keep the order of the samples
  seed                     seed of the random order
  plugins                  files that register the dataset""",
    "list": """\
List what can be chosen by name, with a line about each, or the cost of every model.

Examples:
  {program}                            registered names and config files of each group
  {program} losses                     the losses; also minings, datasets, metrics, heads, ...
  {program} models                     parameters, multiply-adds, outputs and source of each model
  {program} models plugins=[mine.py]   the same, with your own models

The columns of models:
  parameters (M)           in millions, for 19 classes
  GMACs                    multiply-adds of convolutions and matrix products in 1e9, for one image
  at                       the size of that image, which is the one used in the model's paper
  outputs, source          names of the outputs, and the paper or library""",
    "completion": """\
Print a script that completes commands, keys and names in a shell.

Examples:
  eval "$({program} bash)"             in ~/.bashrc
  eval "$({program} zsh)"              in ~/.zshrc""",
}
