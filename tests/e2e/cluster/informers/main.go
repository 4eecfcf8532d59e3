// informers runs shared informers of client-go, as the components of a node do, and tells each call of their handlers
// and what they hold in the end.
//
// Arguments: a kubeconfig, and a JSON list of informers. Standard output has JSON lines: one for each call of a handler,
// one for each list or watch that failed, and one with all that is held for each line on standard input. It ends when
// standard input does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// wanted says what one informer follows.
type wanted struct {
	Name     string `json:"name"`
	Group    string `json:"group"`
	Version  string `json:"version"`
	Resource string `json:"resource"`
	Labels   string `json:"labels"`
	Fields   string `json:"fields"`
	// As is "protobuf" (as kubelet and kube-proxy ask), "json" (a dynamic client) or "metadata" (metadata alone).
	As string `json:"as"`
	// ResyncS are the seconds between two calls for an object that has not changed; 0: there are none.
	ResyncS float64 `json:"resync_s"`
}

// held is one object in a store.
type held struct {
	UID     string `json:"uid"`
	Version string `json:"version"`
}

// call is one of a handler: "add", "update", "delete"; "again" is an update without a change, as a list brings it that
// a client had to ask for anew, or as a resync does.
type call struct {
	Informer string `json:"informer"`
	Call     string `json:"call"`
	Key      string `json:"key"`
	held
}

type running struct {
	name     string
	informer cache.SharedIndexInformer
}

var (
	writing sync.Mutex
	output  = bufio.NewWriter(os.Stdout)
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: informers KUBECONFIG JSON"))
	}
	var list []wanted
	if err := json.Unmarshal([]byte(os.Args[2]), &list); err != nil {
		fail(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		fail(err)
	}
	config.QPS, config.Burst = 50, 100
	ctx := context.Background()
	var all []running
	for _, one := range list {
		informer, err := made(config, one)
		if err != nil {
			fail(err)
		}
		all = append(all, running{one.Name, informer})
		go informer.RunWithContext(ctx)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		tell(all)
	}
}

// made returns an informer that has its handler and is not running.
func made(config *rest.Config, one wanted) (cache.SharedIndexInformer, error) {
	resource := schema.GroupVersionResource{Group: one.Group, Version: one.Version, Resource: one.Resource}
	resync := time.Duration(one.ResyncS * float64(time.Second))
	selected := func(options *metav1.ListOptions) {
		options.LabelSelector, options.FieldSelector = one.Labels, one.Fields
	}
	var informer cache.SharedIndexInformer
	switch one.As {
	case "protobuf":
		own := rest.CopyConfig(config)
		own.ContentType = "application/vnd.kubernetes.protobuf"
		own.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		client, err := kubernetes.NewForConfig(own)
		if err != nil {
			return nil, err
		}
		factory := informers.NewSharedInformerFactoryWithOptions(client, resync, informers.WithTweakListOptions(selected))
		generic, err := factory.ForResource(resource)
		if err != nil {
			return nil, err
		}
		informer = generic.Informer()
	case "json":
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, resync, metav1.NamespaceAll, selected)
		informer = factory.ForResource(resource).Informer()
	case "metadata":
		client, err := metadata.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		factory := metadatainformer.NewFilteredSharedInformerFactory(client, resync, metav1.NamespaceAll, selected)
		informer = factory.ForResource(resource).Informer()
	default:
		return nil, fmt.Errorf("%s: as what? %q", one.Name, one.As)
	}
	name := one.Name
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		say(map[string]string{"informer": name, "error": err.Error()})
	})
	if err != nil {
		return nil, err
	}
	_, err = informer.AddEventHandlerWithResyncPeriod(handler(name), resync)
	return informer, err
}

func handler(name string) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { say(called(name, "add", object)) },
		UpdateFunc: func(before, after any) {
			was, is := called(name, "update", before), called(name, "update", after)
			if was.held == is.held {
				is.Call = "again"
			}
			say(is)
		},
		DeleteFunc: func(object any) {
			if missed, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = missed.Obj
			}
			say(called(name, "delete", object))
		},
	}
}

func called(name, word string, object any) call {
	key, one := described(object)
	return call{Informer: name, Call: word, Key: key, held: one}
}

func described(object any) (string, held) {
	found, err := meta.Accessor(object)
	if err != nil {
		fail(err)
	}
	key, err := cache.MetaNamespaceKeyFunc(object)
	if err != nil {
		fail(err)
	}
	return key, held{UID: string(found.GetUID()), Version: found.GetResourceVersion()}
}

// tell says what all informers hold now; null for one that was not filled yet.
func tell(all []running) {
	stores := map[string]map[string]held{}
	for _, one := range all {
		stores[one.name] = nil
		if !one.informer.HasSynced() {
			continue
		}
		store := map[string]held{}
		for _, object := range one.informer.GetStore().List() {
			key, item := described(object)
			store[key] = item
		}
		stores[one.name] = store
	}
	say(map[string]any{"stores": stores})
}

func say(content any) {
	line, err := json.Marshal(content)
	if err != nil {
		fail(err)
	}
	writing.Lock()
	defer writing.Unlock()
	output.Write(append(line, '\n'))
	output.Flush()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
