// backend is what kube-apiserver asks on behalf of its users, as a pod: a validating webhook that denies each object with
// the label "forbidden", and an aggregated API of any group with one resource, "readings".
//
// TLS with /tls/tls.crt and /tls/tls.key. A client certificate, where there is one, must be of /tls/ca.crt; only then is it
// believed whom the request is for.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"net/http"
	"os"
)

const (
	folder    = "/tls/"
	version   = "v1"
	forbidden = "forbidden"
)

type object = map[string]any

type server struct {
	group string
	pod   string
}

func main() {
	pod, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	authority, err := os.ReadFile(folder + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	group := os.Getenv("GROUP")
	s := &server{group: group, pod: pod}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /validate", s.validate)
	mux.HandleFunc("GET /apis", s.groups)
	mux.HandleFunc("GET /apis/"+group, s.versions)
	mux.HandleFunc("GET /apis/"+group+"/"+version, s.resources)
	mux.HandleFunc("GET /apis/"+group+"/"+version+"/readings", s.readings)
	listener := &http.Server{
		Addr:      ":8443",
		Handler:   mux,
		TLSConfig: &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients},
	}
	log.Fatal(listener.ListenAndServeTLS(folder+"tls.crt", folder+"tls.key"))
}

// validate answers an AdmissionReview.
func (s *server) validate(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Request struct {
			UID    string
			Object struct {
				Metadata struct{ Labels map[string]string }
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, denied := review.Request.Object.Metadata.Labels[forbidden]
	response := object{"uid": review.Request.UID, "allowed": !denied}
	if denied {
		response["status"] = object{"code": http.StatusForbidden, "message": s.pod + " forbids it"}
	}
	answer(w, object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

func (s *server) groups(w http.ResponseWriter, _ *http.Request) {
	answer(w, object{"apiVersion": "v1", "kind": "APIGroupList", "groups": []object{s.described()}})
}

func (s *server) versions(w http.ResponseWriter, _ *http.Request) {
	group := s.described()
	group["apiVersion"], group["kind"] = "v1", "APIGroup"
	answer(w, group)
}

func (s *server) resources(w http.ResponseWriter, _ *http.Request) {
	readings := object{
		"name": "readings", "singularName": "reading", "kind": "Reading", "namespaced": false, "verbs": []string{"list"},
	}
	answer(w, object{
		"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": s.groupVersion(), "resources": []object{readings},
	})
}

// readings lists one, which tells whom it was asked for.
func (s *server) readings(w http.ResponseWriter, r *http.Request) {
	user := ""
	if len(r.TLS.VerifiedChains) > 0 {
		user = r.Header.Get("X-Remote-User")
	}
	one := object{
		"apiVersion": s.groupVersion(), "kind": "Reading", "metadata": object{"name": s.pod}, "user": user,
	}
	answer(w, object{
		"apiVersion": s.groupVersion(), "kind": "ReadingList", "metadata": object{}, "items": []object{one},
	})
}

func (s *server) described() object {
	preferred := object{"groupVersion": s.groupVersion(), "version": version}
	return object{"name": s.group, "versions": []object{preferred}, "preferredVersion": preferred}
}

func (s *server) groupVersion() string { return s.group + "/" + version }

func answer(w http.ResponseWriter, content object) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(content); err != nil {
		log.Print(err)
	}
}
